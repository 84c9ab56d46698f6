// SPDX-License-Identifier: GPL-2.0-or-later
// For node: code that V8's compilers take up one after the other, throw away and make anew, beside its threads.
'use strict';
const crypto = require('crypto');
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');

function mix(count, start) {
    let sum = start | 0;
    for (let n = 0; n < count; n++)
        sum = (Math.imul(sum, 31) + (n ^ (sum >>> 7))) | 0;
    return sum;
}

if (!isMainThread) {
    parentPort.postMessage(mix(3000000, workerData));
    return;
}

console.log('integers', mix(20000000, 1));

let x = 0.5;
for (let n = 0; n < 5000000; n++)
    x = 3.99 * x * (1 - x);
console.log('floats', x);

// Compiled for small integers, then thrown away for what comes.
const add = (a, b) => a + b;
let total = 0;
for (let n = 0; n < 300000; n++)
    total = add(total, n);
total = add(add(total, 0.5), '!');
for (let n = 0; n < 1000; n++)
    total = add(total, n % 10);
console.log('mixed', total.length, crypto.createHash('sha256').update(total).digest('hex'));

const shapes = [];
for (let n = 0; n < 200000; n++)
    shapes.push(n % 3 ? { kind: 'a', n } : n % 2 ? { n, kind: 'b' } : new Map([['n', n]]));
console.log('objects', shapes.reduce((sum, s) => (sum + (s.n ?? s.get('n')) * 7) % 1000003, 0));

const table = new Float64Array(1 << 16), bytes = new Uint8Array(table.buffer);
for (let n = 0; n < table.length; n++)
    table[n] = Math.sqrt(n) / (n + 1);
console.log('memory', crypto.createHash('sha256').update(bytes).digest('hex'));

console.log('big', (3n ** 2000n % 1000000007n).toString());
console.log('text', 'the guest reads what the host writes '.repeat(3000).replace(/(\w+) (\w+)/g, '$2 $1').match(/st\b/g).length);

// (func (export "f") (param i32) (result i32)): a loop that adds the squares of all numbers up to the parameter.
const wasm = new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 6, 1, 0x60, 1, 0x7f, 1, 0x7f, 3, 2, 1, 0, 7, 5, 1, 1, 0x66, 0, 0,
    10, 30, 1, 28, 1, 1, 0x7f, 3, 0x40, 0x20, 0, 0x20, 0, 0x6c, 0x20, 1, 0x6a, 0x21, 1, 0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 13, 0,
    11, 0x20, 1, 11]);
console.log('wasm', new WebAssembly.Instance(new WebAssembly.Module(wasm)).exports.f(3000000));

try {
    null.field;
} catch (error) {
    console.log('error', error instanceof TypeError);
}

function deep(n) {
    return n ? 1 + deep(n - 1) : 0;
}
try {
    deep(1e9);
} catch (error) {
    console.log('stack', error instanceof RangeError, deep(1000));
}

let left = 2;
const answers = [];
for (let n = 0; n < 2; n++)
    new Worker(__filename, { workerData: n }).on('message', sum => {
        answers[n] = sum;
        if (!--left)
            console.log('threads', answers.join(' '));
    });
