-- SPDX-License-Identifier: GPL-2.0-or-later
-- For LuaJIT: loops that its compiler takes up, leaves by their guards, and makes anew.
local bit, ffi = require("bit"), require("ffi")

local function checksum(sum, value)
    return bit.tobit(bit.bxor(sum, bit.rshift(sum, 7)) * 31 + value)
end

local sum = 0
for n = 1, 20000000 do
    sum = checksum(sum, n)
end
print("integers", sum)

local x = 0.5
for n = 1, 5000000 do
    x = 3.99 * x * (1 - x)
end
print(string.format("floats %.17g", x))

-- The type in the loop changes, and with it the code.
local function add(a, b) return a + b end
local total, words = 0, {}
for n = 1, 300000 do
    if n % 1000 == 0 then words[#words + 1] = add(n, 0.25) .. "/" .. tostring(n) end
    total = add(total, n % 3 == 0 and 0.5 or n)
end
table.sort(words)
print("mixed", total, #words, words[1], words[#words], #table.concat(words, ";"))

ffi.cdef [[
typedef struct { double x, y; int32_t n; uint8_t tag[12]; } point;
int abs(int);
size_t strlen(const char *);
]]
local points = ffi.new("point[1000]")
sum = 0
for round = 1, 300 do
    for n = 0, 999 do
        local p = points[n]
        p.x, p.y, p.n = p.x + n, p.y - round, p.n + ffi.C.abs(n - round)
        p.tag[n % 12] = round
        sum = checksum(sum, p.n + p.tag[(n + 1) % 12])
    end
end
print("memory", sum, points[7].x, points[999].y, tonumber(ffi.C.strlen("seven77")))

local function words_of(text)
    return coroutine.wrap(function() for word in text:gmatch("%a+") do coroutine.yield(word) end end)
end
local counts, text = {}, ("the guest reads what the host writes "):rep(2000)
for word in words_of(text) do counts[word] = (counts[word] or 0) + 1 end
print("coroutines", counts.the, counts.guest, counts.writes)

local ok, what = pcall(function() local t = nil; return t.field end)
print("error", ok, (what:gsub("^.-:%d+: ", "")))
