// Writes the test vectors as starting points for the fuzz targets: node tests/fuzz/seeds.mjs

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const read = path => JSON.parse(readFileSync(join(here, '../vectors', path)))
const bytes = text => Buffer.from(text, 'hex')
const frame = payload => Buffer.concat([Buffer.from([0, payload.length >> 8, payload.length & 255]), payload])

const kinds = ['HistorySync', 'WebMessageInfo', 'ClientPayload', 'ADVSignedDeviceIdentityHMAC', 'SyncdPatch', 'SyncActionData', 'LIDMigrationMappingSyncPayload', 'Message']
const handshakes = read('noise/handshakes.json')
const steps = (list, choices = 0) => Buffer.concat([Buffer.from([choices]), ...list.map(step => Buffer.concat([Buffer.from([step.length >> 8, step.length & 255]), step]))])
const stanzas = read('binary/nodes.json').filter(vector => !/^(tree|text|content|tokens|\d|jid)/.test(vector.name)).map(vector => bytes(vector.wire)).filter(wire => wire.length < 3000)
const seeds = {
	engine: [...read('proto/messages.json').filter(vector => vector.kind).map(vector => steps([bytes(vector.wire)], 4)), ...stanzas.map(stanza => steps([stanza])), steps([...stanzas.slice(0, 8), Buffer.alloc(0), ...stanzas.slice(8, 12)])],
	node: read('binary/nodes.json').map(vector => bytes(vector.wire)),
	protobuf: read('proto/messages.json').filter(vector => kinds.includes(vector.type)).map(vector => Buffer.concat([Buffer.from([kinds.indexOf(vector.type)]), bytes(vector.wire)])),
	handshake: handshakes.flatMap(vector => [[0, vector.server_hello], [1, vector.chain], [3, vector.first.slice(14) + vector.finish.slice(6)]].map(([mode, text]) => Buffer.concat([Buffer.from([mode]), bytes(text)]))),
	frame: handshakes.map(vector => Buffer.concat([Buffer.from([5]), ...vector.transport.map(({ up_frame: up }) => bytes(up)), frame(Buffer.alloc(700, 7))])),
}

for (const [target, list] of Object.entries(seeds)) {
	const folder = join(here, 'corpus', target)
	mkdirSync(folder, { recursive: true })
	list.filter(seed => seed.length < 4096).forEach((seed, i) => writeFileSync(join(folder, `seed-${i}`), seed))
	console.log(`${target}: ${list.length} seeds`)
}
