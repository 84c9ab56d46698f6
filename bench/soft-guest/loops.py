# SPDX-License-Identifier: GPL-2.0-or-later
"""What Python programs do most, for bench/soft: arithmetic, calls, attributes, lists, dictionaries, strings. Prints a
number that tells whether all was computed right."""
import sys


class Counter:
    def __init__(self):
        self.value = 0

    def add(self, n):
        self.value = (self.value * 31 + n) % 1000003


def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def sieve(limit):
    known = bytearray([1]) * (limit + 1)
    for n in range(2, int(limit ** 0.5) + 1):
        if known[n]:
            known[n * n::n] = bytes(len(range(n * n, limit + 1, n)))
    return sum(known) - 2


def words(count):
    seen = {}
    for n in range(count):
        word = f"word-{n * 7919 % 1009}"
        seen[word] = seen.get(word, 0) + len(word)
    return sum(seen.values())


def main(rounds):
    counter = Counter()
    for _ in range(rounds):
        counter.add(fibonacci(18))
        counter.add(sieve(20000))
        counter.add(words(10000))
        counter.add(sorted(n * 7919 % 10007 for n in range(5000))[1234])
        for n in range(10000):
            counter.add(n)
    print("result", counter.value)


main(int(sys.argv[1]))
