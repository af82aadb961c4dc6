// Stanzas in wire form, written and read by Baileys.
// Usage: node tests/vectors/generate/binary.mjs <node_modules with @whiskeysockets/baileys>

import { deflateSync } from 'node:zlib'
import { bytes, hex, load, seeded, write } from './common.mjs'

const { encodeBinaryNode } = await load('lib/WABinary/encode.js')
const { decodeBinaryNode } = await load('lib/WABinary/decode.js')
const { SINGLE_BYTE_TOKENS, DOUBLE_BYTE_TOKENS } = await load('lib/WABinary/constants.js')

const node = (tag, attrs = {}, content) => ({ tag, attrs, content })
const text = (label, length) => hex(bytes(label, length))
const list = []

/** The form in the file: content as `nodes`, `bytes` (hex) or `text`. */
const plain = ({ tag, attrs, content }) => ({
	tag,
	attrs: Object.entries(attrs),
	...(Array.isArray(content) ? { nodes: content.map(plain) }
		: typeof content === 'string' ? { text: content }
		: content ? { bytes: hex(content) }
		: {}),
})

/** A stanza that Baileys writes; `read` is there when it reads something else back. `differs` says why our bytes are others; the meaning is the same. */
async function written(name, stanza, differs) {
	const wire = encodeBinaryNode(stanza)
	const [sent, read] = [plain(stanza), plain(await decodeBinaryNode(wire))]
	const same = JSON.stringify(sent) === JSON.stringify(read)
	list.push({ name, wire: hex(wire), sent, ...(same ? {} : { read }), ...(differs && { differs }) })
}

/** Bytes no client of today writes like this, but that mean something. */
async function crafted(name, parts) {
	const wire = Buffer.concat(parts.map(part => (typeof part === 'string' ? Buffer.from(part) : Buffer.from([part].flat()))))
	list.push({ name, wire: hex(wire), read: plain(await decodeBinaryNode(wire)) })
}

const me = '6281200000001:3@s.whatsapp.net'
const peer = '4915100000002@s.whatsapp.net'
const lid = '100000000000011@lid'
const group = '120363000000000021@g.us'

// ---- stanzas of everyday ----
await written('ping', node('iq', { id: '12345.6789-1', to: '@s.whatsapp.net', type: 'get', xmlns: 'w:p' }, [node('ping')]))
await written('text to two devices', node('message', { id: '3EB0C431C26A1916E07E', to: peer, type: 'text', phash: '2:AAAAAAAA' }, [
	node('participants', {}, [
		node('to', { jid: '4915100000002:1@s.whatsapp.net' }, [node('enc', { v: '2', type: 'pkmsg' }, bytes('enc1', 180))]),
		node('to', { jid: '6281200000001:9@s.whatsapp.net' }, [node('enc', { v: '2', type: 'msg' }, bytes('enc2', 300))]),
	]),
	node('device-identity', {}, bytes('identity', 150)),
]))
await written('received message', node('message', { from: lid, sender_pn: peer, type: 'text', id: 'ACB7E0D1C2F3A4B5', notify: 'Ada Löve', t: '1795480000', addressing_mode: 'lid' }, [
	node('enc', { v: '2', type: 'msg', count: '2' }, bytes('enc3', 112)),
]))
await written('group message', node('message', { from: group, participant: '100000000000011:4@lid', participant_pn: peer, id: '3A0102030405060708', t: '1795480001', type: 'media', offline: '3' }, [
	node('enc', { v: '2', type: 'skmsg', mediatype: 'image' }, bytes('enc4', 700)),
]))
await written('receipt', node('receipt', { id: '3EB0C431C26A1916E07E', to: peer, type: 'read', participant: '100000000000011:4@lid', t: '1795480002' }, [
	node('list', {}, [node('item', { id: 'ACB7E0D1C2F3A4B5' }), node('item', { id: '3A0102030405060708' })]),
]))
await written('retry receipt', node('receipt', { id: '3EB0C431C26A1916E07E', to: '4915100000002:2@s.whatsapp.net', type: 'retry' }, [
	node('retry', { count: '1', id: '3EB0C431C26A1916E07E', t: '1795480002', v: '1' }),
	node('registration', {}, bytes('reg', 4)),
	node('keys', {}, [node('type', {}, Buffer.from([5])), node('identity', {}, bytes('id', 32)), node('key', {}, [node('id', {}, bytes('kid', 3)), node('value', {}, bytes('kv', 32))])]),
]))
await written('ack', node('ack', { id: '3EB0C431C26A1916E07E', to: peer, class: 'receipt', type: 'read' }))
await written('nack', node('ack', { id: '3EB0C431C26A1916E07E', to: peer, class: 'message', error: '487' }))
await written('usync', node('iq', { id: '1.2-3', to: '@s.whatsapp.net', type: 'get', xmlns: 'usync' }, [
	node('usync', { context: 'message', mode: 'query', sid: '1.2-4', last: 'true', index: '0' }, [
		node('query', {}, [node('devices', { version: '2' }), node('lid')]),
		node('list', {}, [node('user', { jid: peer }), node('user', {}, [node('contact', {}, '+4915100000002')])]),
	]),
]))
await written('prekey upload', node('iq', { id: '1.2-5', to: '@s.whatsapp.net', type: 'set', xmlns: 'encrypt' }, [
	node('registration', {}, bytes('reg', 4)),
	node('type', {}, Buffer.from([5])),
	node('identity', {}, bytes('identity', 32)),
	node('list', {}, Array.from({ length: 260 }, (_, i) => node('key', {}, [node('id', {}, Buffer.from([0, i >> 8, i & 255])), node('value', {}, bytes(`prekey ${i}`, 32))]))),
	node('skey', {}, [node('id', {}, Buffer.from([0, 0, 1])), node('value', {}, bytes('skey', 32)), node('signature', {}, bytes('sig', 64))]),
]))
await written('pair-device', node('iq', { from: '@s.whatsapp.net', type: 'set', id: '77', xmlns: 'md' }, [
	node('pair-device', {}, Array.from({ length: 6 }, (_, i) => node('ref', {}, Buffer.from(`2@${text(`ref${i}`, 40)}`)))),
]))
await written('success', node('success', { t: '1795480003', props: '27', companion_enc_static: text('x', 8), lid: '100000000000012:3@lid', abprops: '5', group_abprops: '6' }))
await written('failure', node('failure', { reason: '401', location: 'frc' }))
await written('stream error', node('stream:error', { code: '515' }))
await written('conflict', node('stream:error', {}, [node('conflict', { type: 'replaced' })]))
await written('offline', node('ib', { from: '@s.whatsapp.net' }, [node('offline', { count: '12' })]))
await written('routing info', node('ib', { from: '@s.whatsapp.net' }, [node('edge_routing', {}, [node('routing_info', {}, bytes('routing', 12))])]))
await written('typing', node('chatstate', { from: me, to: peer }, [node('composing', { media: 'audio' })]))
await written('presence', node('presence', { from: lid, type: 'unavailable', last: '1795480004' }))
await written('call', node('call', { from: lid, id: text('call', 8).toUpperCase(), t: '1795480005' }, [node('offer', { 'call-id': text('call', 16).toUpperCase(), 'call-creator': '100000000000011:4@lid' }, [node('audio', { enc: 'opus', rate: '16000' })])]))
await written('group metadata', node('iq', { from: group, id: '5', type: 'result' }, [
	node('group', { id: '120363000000000021', creator: lid, creation: '1700000000', subject: 'Fußball ⚽', s_t: '1700000001', s_o: lid, addressing_mode: 'lid' },
		Array.from({ length: 257 }, (_, i) => node('participant', { jid: `1000000000${10000 + i}@lid`, phone_number: `49151000${10000 + i}@s.whatsapp.net`, ...(i ? {} : { type: 'superadmin' }) }))),
]))
await written('pairing code', node('iq', { to: '@s.whatsapp.net', type: 'set', id: '8', xmlns: 'md' }, [
	node('link_code_companion_reg', { jid: '4915100000002@s.whatsapp.net', stage: 'companion_hello', should_show_push_notification: 'true' }, [
		node('link_code_pairing_wrapped_companion_ephemeral_pub', {}, bytes('w', 80)),
		node('companion_server_auth_key_pub', {}, bytes('noise', 32)),
		node('companion_platform_id', {}, '1'),
		node('companion_platform_display', {}, 'Chrome (Linux)'),
		node('link_code_pairing_nonce', {}, '0'),
	]),
]))

// ---- every token, as a tag and as text ----
for (const [name, table] of [['single', SINGLE_BYTE_TOKENS.slice(1)], ...DOUBLE_BYTE_TOKENS.map((table, i) => [`double ${i}`, table])]) {
	await written(`tokens ${name}`, node('list', {}, table.map(token => node(token, {}, token))))
}

// ---- JIDs ----
for (const jid of ['4915100000002@s.whatsapp.net', '4915100000002:1@s.whatsapp.net', '4915100000002:99@hosted', '100000000000011:255@lid', '100000000000011:2@hosted.lid', '100000000000011@lid', group, '4915100000002-1600000000@g.us', 'status@broadcast', '120363000000000031@newsletter', '4915100000002@c.us', '@s.whatsapp.net', '13135550002@bot', '1234@call']) {
	await written(`jid ${jid}`, node('x', { from: jid }))
}
for (const [jid, why] of [['4915100000002:0@s.whatsapp.net', 'device 0 is the user: we write a pair'], ['100000000000011@hosted.lid', 'hosted JIDs always have the device form with us']]) {
	await written(`jid ${jid}`, node('x', { from: jid }), why)
}

// ---- texts ----
for (const value of ['0', '00', '-', '.', '-1.5', '0123456789-.', 'A', 'AB', 'ABCDEF0123456789', 'abc', 'a', 'ABCG', ' ', 'ü', '🦀', '7'.repeat(127), '7'.repeat(128), 'F'.repeat(127), 'F'.repeat(128), 'x'.repeat(255), 'x'.repeat(256), 'ü'.repeat(200), 'somebody@example.org', 'a@b', 'true', 'false']) {
	const shown = value.length > 20 ? `${value.slice(0, 1)} × ${value.length}` : value
	const jid = value.includes('@') ? 'Baileys takes everything with an @ for a JID' : undefined
	await written(`text ${shown}`, node('x', { value }), jid)
	if (!jid) await written(`content ${shown}`, node('x', {}, value))
}

// ---- lengths ----
for (const length of [0, 1, 255, 256, 5000]) {
	await written(`${length} bytes`, node('x', {}, bytes('length', length)))
}
for (const length of [0, 1, 255, 256]) {
	await written(`${length} children`, node('x', {}, Array.from({ length }, () => node('item'))))
}
await written('127 attributes', node('x', Object.fromEntries(Array.from({ length: 127 }, (_, i) => [`key${i}`, `value ${i}`]))))
await written('128 attributes', node('x', Object.fromEntries(Array.from({ length: 128 }, (_, i) => [`key${i}`, `value ${i}`]))))

// ---- forms that only arrive ----
const [LIST_8, LIST_16, BINARY_8, BINARY_20, BINARY_32, NIBBLE, HEX] = [248, 249, 252, 253, 254, 255, 251]
const token = name => SINGLE_BYTE_TOKENS.indexOf(name)
const user = [NIBBLE, 5, 0x12, 0x34, 0x56, 0x78, 0x90]
await crafted('messenger JID', [0, LIST_8, 3, token('message'), token('from'), 246, user, [0, 40], [BINARY_8, 4], 'msgr'])
await crafted('interop JID', [0, LIST_8, 3, token('message'), token('from'), 245, user, [0, 2], [0, 77], [BINARY_8, 7], 'interop'])
await crafted('long list for a short node', [0, LIST_16, 0, 1, token('iq')])
await crafted('long length for short bytes', [0, LIST_8, 2, token('iq'), BINARY_20, 0, 0, 2, 7, 8])
await crafted('longest length for short bytes', [0, LIST_8, 2, token('iq'), BINARY_32, 0, 0, 0, 2, 7, 8])
await crafted('empty attribute', [0, LIST_8, 3, token('iq'), token('id'), 0])
await crafted('odd hex', [0, LIST_8, 3, token('iq'), token('id'), HEX, 0x82, 0xab, 0xcf])
await crafted('tag as raw text', [0, LIST_8, 1, [BINARY_8, 3], 'abc'])
await crafted('JID as content', [0, LIST_8, 2, token('iq'), 247, 1, 5, user])
for (const name of ['ping', 'group metadata', 'prekey upload']) {
	const { wire, sent, read = sent } = list.find(vector => vector.name === name)
	const deflated = deflateSync(Buffer.from(wire, 'hex').subarray(1))
	list.push({ name: `${name}, compressed`, wire: hex(Buffer.concat([Buffer.from([2]), deflated])), read })
	if (JSON.stringify(plain(await decodeBinaryNode(Buffer.concat([Buffer.from([2]), deflated])))) !== JSON.stringify(read)) throw new Error(name)
}

// ---- random trees ----
const random = seeded('binary trees')
const pick = from => from[random(from.length)]
const words = [...SINGLE_BYTE_TOKENS.slice(3, 60), ...DOUBLE_BYTE_TOKENS[1].slice(0, 40), 'unknown_word', 'grüezi', 'x'].filter(word => /^\D/.test(word))
const someText = i => pick([() => pick(words), () => String(random(1e9)), () => text(`t${i}`, 1 + random(20)).toUpperCase(), () => text(`t${i}`, 1 + random(90)), () => `${10000 + random(1e9)}:${1 + random(99)}@${pick(['lid', 's.whatsapp.net'])}`, () => `${random(1e9)}@${pick(['g.us', 'lid', 'newsletter'])}`])()
const tree = depth => node(pick(words), Object.fromEntries(Array.from({ length: random(5) }, (_, i) => [pick(words) + i, someText(i)])),
	depth && random(3) ? Array.from({ length: 1 + random(3) }, () => tree(depth - 1)) : random(2) ? bytes(`content ${random(1e9)}`, random(40)) : undefined)
for (let i = 0; i < 60; i++) await written(`tree ${i}`, tree(3))

write('binary/nodes.json', list)
