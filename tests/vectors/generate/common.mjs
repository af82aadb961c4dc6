// Shared by the vector generators: where Baileys is, where vectors go, a fixed random source.

import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

if (!process.argv[2]) {
	console.error(`usage: node ${process.argv[1]} <node_modules with @whiskeysockets/baileys>`)
	process.exit(2)
}

export const modules = resolve(process.argv[2])
export const vectors = dirname(dirname(fileURLToPath(import.meta.url)))
export const repository = dirname(dirname(vectors))

const baileys = join(modules, '@whiskeysockets/baileys')

/** Imports one file of the Baileys package, e.g. `lib/WABinary/encode.js`. */
export const load = path => import(pathToFileURL(join(baileys, path)).href)
/** Imports another package of the same folder. */
export const loadPackage = path => import(pathToFileURL(join(modules, path)).href)

export const source = `npm @whiskeysockets/baileys ${JSON.parse(readFileSync(join(baileys, 'package.json'))).version}`

export const hex = bytes => Buffer.from(bytes).toString('hex')

/** Writes one vector file; one vector per line, so that changes can be read. */
export function write(path, list) {
	writeFileSync(join(vectors, path), '[\n' + list.map(item => JSON.stringify(item)).join(',\n') + '\n]\n')
	console.log(`${path}: ${list.length} vectors`)
}

/** The same bytes for the same label, on every run. */
export function bytes(label, length) {
	let out = Buffer.alloc(0)
	for (let i = 0; out.length < length; i++) {
		out = Buffer.concat([out, createHash('sha256').update(`${label}/${i}`).digest()])
	}
	return out.subarray(0, length)
}

/** A random source with a fixed seed: `random(n)` is an integer in 0..n. */
export function seeded(label) {
	let i = 0
	return limit => bytes(`${label}#${i++}`, 4).readUInt32BE() % limit
}
