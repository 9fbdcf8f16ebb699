// SPDX-License-Identifier: MIT OR Apache-2.0
// Waits at its gate, in JavaScript, and then again. Protocol as in waits.c.
const fs = require('fs');

function readInner() {
	return fs.readSync(0, Buffer.alloc(8));
}

function readOuter() {
	return readInner() + 0;
}

fs.writeSync(1, process.pid + '\n');
if (readOuter()) {
	fs.writeSync(1, 'done\n');
	readOuter();
}
