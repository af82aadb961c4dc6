// Every message of our schema, filled in and encoded by Baileys; and a check of our schema against Baileys' own.
// Usage: node tests/vectors/generate/proto.mjs <node_modules with @whiskeysockets/baileys>

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { bytes, hex, load, loadPackage, repository, seeded, write } from './common.mjs'

const { proto } = await load('WAProto/index.js')
const { default: protobuf } = await loadPackage('protobufjs/index.js')

const ours = protobuf.parse(readFileSync(join(repository, 'src/whatsapp/proto/whatsapp.proto'), 'utf8'), { keepCase: true }).root
const theirs = protobuf.parse(readFileSync(join(process.argv[2], '@whiskeysockets/baileys/WAProto/WAProto.proto'), 'utf8'), { keepCase: true }).root
ours.resolveAll()
theirs.resolveAll()

const all = (scope, out = []) => {
	for (const item of scope.nestedArray ?? []) {
		if (item instanceof protobuf.Type || item instanceof protobuf.Enum) out.push(item)
		all(item, out)
	}
	return out
}
const reference = new Map()
for (const item of all(theirs)) {
	const key = item.name.toLowerCase()
	reference.set(key, [...(reference.get(key) ?? []), item])
}
const qualified = item => item.fullName.split('.').slice(2)
/** Baileys' type of the same name; where a name exists twice, the one in the same parent. */
const counterpart = item => {
	const candidates = reference.get(item.name.toLowerCase()) ?? []
	const parent = item.parent.name.toLowerCase()
	return candidates.find(other => other.parent.name.toLowerCase() === parent) ?? candidates[0]
}
/** Baileys' encoder of a type. */
const codec = type => qualified(type).reduce((scope, name) => scope?.[name], proto)

// ---- the schema ----
const unknown = []
const wrong = []
for (const item of all(ours)) {
	const other = counterpart(item)
	if (!other) {
		unknown.push(item.fullName)
		continue
	}
	if (item instanceof protobuf.Enum) {
		for (const [name, value] of Object.entries(item.values)) {
			if (other.values[name] === undefined) unknown.push(`${item.fullName}.${name}`)
			else if (other.values[name] !== value) wrong.push(`${item.fullName}.${name}: ${value}, theirs ${other.values[name]}`)
		}
		continue
	}
	for (const field of item.fieldsArray) {
		const match = other.fieldsArray.find(candidate => candidate.id === field.id)
		if (!match) {
			unknown.push(`${item.fullName}.${field.name}`)
			continue
		}
		const kind = resolved => (resolved instanceof protobuf.Type ? 'message' : resolved instanceof protobuf.Enum ? 'int32' : null)
		const mine = kind(field.resolvedType) ?? field.type
		const their = kind(match.resolvedType) ?? match.type
		const same = mine === their || (mine === 'bytes' && their === 'message')
		if (match.name.toLowerCase() !== field.name.toLowerCase() || field.repeated !== match.repeated || !same) {
			wrong.push(`${item.fullName}: ${field.name} = ${field.id} ${mine}, theirs ${match.name} ${their}`)
		}
	}
}
if (wrong.length) {
	console.error(`our schema is wrong:\n${wrong.join('\n')}`)
	process.exit(1)
}
console.log(`not in Baileys, so not checked: ${unknown.join(', ')}`)

// ---- the values ----
function value(field, label, depth) {
	const random = seeded(label)
	if (field.resolvedType instanceof protobuf.Type) return fill(field.resolvedType, label, depth - 1)
	if (field.resolvedType instanceof protobuf.Enum) {
		const known = Object.values(counterpart(field.resolvedType).values).filter(number => Object.values(field.resolvedType.values).includes(number))
		return known[random(known.length)]
	}
	switch (field.type) {
		case 'string': return `${field.name} ${random(1000)} ✓`
		case 'bytes': return bytes(label, 1 + random(40))
		case 'bool': return random(2) === 1
		case 'float': return random(1000) / 8
		case 'double': return random(1e9) / 1024 - 90
		case 'int32': return [0, 1, 77, 2_000_000_000, -5][random(5)]
		case 'sfixed32': return random(1e9) - 5e8
		case 'uint32': case 'fixed32': return [0, 1, 300, 4_000_000_000][random(4)]
		case 'int64': return [0, 1_795_480_000_123, -7][random(3)]
		case 'uint64': return [0, 1_795_480_000_123, 4_915_100_000_002][random(3)]
		default: throw new Error(`no value for ${field.type}`)
	}
}

function fill(type, label, depth) {
	const other = counterpart(type)
	const out = {}
	for (const field of type.fieldsArray) {
		const match = other.fieldsArray.find(candidate => candidate.id === field.id)
		const message = field.resolvedType instanceof protobuf.Type
		// A body we keep as bytes is a message there: an empty one is the same on the wire.
		const opaque = !message && match?.resolvedType instanceof protobuf.Type
		if (!match || (message && depth <= 0)) continue
		// Baileys declares proto3, where lists of numbers are packed unless told otherwise; WhatsApp's proto2 has the
		// opposite default. Every reader takes both forms, but the bytes differ.
		if (field.name === 'scanLengths') continue
		const make = i => (opaque ? {} : value(field, `${label}.${field.name}${i}`, depth))
		out[match.name] = field.repeated ? [make(0), make(1)] : make('')
	}
	return out
}

const list = []
for (const type of all(ours)) {
	const encoder = type instanceof protobuf.Type && counterpart(type) && codec(counterpart(type))
	if (!encoder) continue
	const name = qualified(type).join('.')
	for (const depth of [0, 1, 2]) {
		// `Message` names every kind; two levels of everything would be half a megabyte.
		if (depth === 2 && type.name === 'Message') continue
		const wire = hex(encoder.encode(encoder.fromObject(fill(type, name, depth))).finish())
		if (!list.some(vector => vector.type === name && vector.wire === wire)) list.push({ type: name, wire })
	}
}
for (const field of ours.lookupType('Message').fieldsArray) {
	const match = counterpart(field.parent).fieldsArray.find(candidate => candidate.id === field.id)
	if (!match || !(field.resolvedType instanceof protobuf.Type)) continue
	const content = { [match.name]: fill(field.resolvedType, `kind ${field.name}`, 2) }
	list.push({ type: 'Message', kind: field.name, wire: hex(proto.Message.encode(proto.Message.fromObject(content)).finish()) })
}
write('proto/messages.json', list)
