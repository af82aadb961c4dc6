// Makes tests/vectors/baileys_auth/: auth folders left by real Baileys clients after chats in the sandbox, and sessions
// of libsignal with messages still under way.
//
//   node tests/peers/auth_folders.mjs target/debug/whatsapp-worker
//
// Each folder becomes one JSON file, {"version", "files": {name: text}}. Prekeys beyond the first and last few are left
// out to keep the files small. All numbers are invented; all keys were made for this and never seen outside.

import { spawn } from 'node:child_process'
import { mkdtempSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const out = join(here, '../vectors/baileys_auth')
const scratch = mkdtempSync(join(tmpdir(), 'auth-folders-'))
const children = []

function start(command, args, options = {}) {
	const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'ignore'], ...options })
	children.push(child)
	const lines = []
	const waiting = []
	createInterface({ input: child.stdout }).on('line', text => {
		lines.push(JSON.parse(text))
		waiting.splice(0).forEach(wake => wake())
	})
	/** The first line from `from` on that fits. */
	const await_ = async (what, fits, from = 0) => {
		const deadline = Date.now() + 60_000
		for (;;) {
			const found = lines.slice(from).find(fits)
			if (found) return found
			if (Date.now() > deadline) throw new Error(`waited too long: ${what}`)
			await Promise.race([new Promise(wake => waiting.push(wake)), new Promise(wake => setTimeout(wake, 1000))])
		}
	}
	return { child, lines, await: await_ }
}

class Sandbox {
	static async start(worker) {
		const process_ = start(resolve(worker), ['--sandbox-service'], { env: { ...process.env, SANDBOX_PORT: '0' } })
		const info = await process_.await('the sandbox', line => line.whatsappUrl)
		writeFileSync(join(scratch, 'ca.pem'), info.caPem)
		return Object.assign(new Sandbox(), info)
	}

	async ask(method, path, body) {
		const answer = await fetch(this.controlUrl + path, { method, body: body && JSON.stringify(body) })
		const json = await answer.json()
		if (!json.success) throw new Error(`${method} ${path}: ${JSON.stringify(json)}`)
		return json.data
	}
}

class Clients {
	constructor(version, sandbox) {
		const home = join(here, version === 6 ? 'baileys6' : 'baileys')
		this.package = JSON.parse(readFileSync(join(home, 'node_modules/@whiskeysockets/baileys/package.json')))
		const BAILEYS_PACKAGE = join(home, 'node_modules/@whiskeysockets/baileys/lib/index.js')
		const peer = join(here, 'baileys/peer.mjs')
		const env = { ...process.env, BAILEYS_PACKAGE, ...(version === 6 && { BAILEYS_LATENCY_MS: '5' }) }
		Object.assign(this, start(process.execPath, [peer], { env }))
		this.sandbox = sandbox
		this.id = 0
	}

	async ask(peer, action, options = {}) {
		const id = ++this.id
		this.child.stdin.write(JSON.stringify({ id, peer, do: action, ...options }) + '\n')
		const answer = await this.await(`${peer} ${action}`, line => line.id === id && !line.event)
		if (answer.error) throw new Error(`${peer} ${action}: ${answer.error}`)
		return answer.ok
	}

	dir(peer) {
		return join(scratch, peer)
	}

	async link(peer, phone) {
		const from = this.lines.length
		const { whatsappUrl: url } = this.sandbox
		await this.ask(peer, 'start', { url, caFile: join(scratch, 'ca.pem'), authDir: this.dir(peer), history: true })
		const { qr } = await this.await('a QR', line => line.peer === peer && line.event === 'qr', from)
		await this.sandbox.ask('POST', `/phones/${phone}/scan`, { qr })
		await this.await('login', line => line.peer === peer && line.event === 'open', from)
	}

	async has(peer, text) {
		await this.await(`${peer} reads ${text}`, line => line.peer === peer && line.event === 'message' && line.text === text)
	}
}

async function phoneHas(sandbox, phone, text) {
	for (let after = 0; ; ) {
		const { messages } = await sandbox.ask('GET', `/phones/${phone}/messages?after=${after}&wait=10`)
		if (messages.some(message => message.text === text)) return
		after += messages.length
	}
}

/** One account of this Baileys: 1:1 chats with a phone and another client, a group with both, then a clean stop. */
async function makeFolder(sandbox, version, migrated, number) {
	const [ours, theirs, carol] = [number, number + 1, number + 2].map(String)
	for (const phone of [ours, theirs, carol]) await sandbox.ask('POST', '/phones', { phone, lidMigrated: migrated })
	const jid = async phone => (migrated ? `${(await sandbox.ask('GET', `/phones/${phone}`)).lid}@lid` : phone)
	const clients = new Clients(version, sandbox)
	const [a, b] = [`a${number}`, `b${number}`]
	await clients.link(a, ours)
	await clients.link(b, theirs)
	await clients.ask(a, 'sendText', { to: await jid(carol), text: 'hello Carol', acked: true })
	await phoneHas(sandbox, carol, 'hello Carol')
	await sandbox.ask('POST', `/phones/${carol}/send`, { to: ours, text: 'hello back' })
	await clients.has(a, 'hello back')
	await clients.ask(b, 'sendText', { to: await jid(ours), text: 'from b', acked: true })
	await clients.has(a, 'from b')
	await clients.ask(a, 'sendText', { to: await jid(theirs), text: 'to b', acked: true })
	await clients.has(b, 'to b')
	const { group } = await sandbox.ask('POST', '/groups', { creator: carol, subject: 'Friends', participants: [ours, theirs] })
	for (const round of [1, 2]) {
		await clients.ask(a, 'sendText', { to: group, text: `group a ${round}`, acked: true })
		await clients.has(b, `group a ${round}`)
		await clients.ask(b, 'sendText', { to: group, text: `group b ${round}`, acked: true })
		await clients.has(a, `group b ${round}`)
		await sandbox.ask('POST', `/phones/${carol}/send`, { to: group, text: `group c ${round}` })
		await clients.has(a, `group c ${round}`)
	}
	await clients.ask(a, 'stop')
	await clients.ask(b, 'stop')
	const name = `${version === 6 ? 'six' : 'seven'}_${migrated ? 'lid' : 'pn'}`
	const files = {}
	const names = readdirSync(clients.dir(a)).sort()
	const prekeys = names.filter(file => file.startsWith('pre-key-')).sort((x, y) => parseInt(x.slice(8)) - parseInt(y.slice(8)))
	const dropped = new Set(prekeys.slice(3, -2))
	for (const file of names.filter(file => !dropped.has(file))) files[file] = readFileSync(join(clients.dir(a), file), 'utf8')
	const json = { baileys: clients.package.version, group, carol, theirs, files }
	writeFileSync(join(out, `${name}.json`), JSON.stringify(json, null, 1) + '\n')
	console.log(name, Object.keys(files).length, 'files')
}

/** Records of libsignal with late messages, replaced sessions and a pending set-up; and what they must decrypt. */
async function makeSessions() {
	const require = createRequire(join(here, 'baileys/package.json'))
	const { SessionBuilder, SessionCipher, SessionRecord, ProtocolAddress, keyhelper } = require('libsignal')
	class Party {
		constructor(id) {
			this.identity = keyhelper.generateIdentityKeyPair()
			this.registrationId = id
			this.signed = keyhelper.generateSignedPreKey(this.identity, 1)
			this.prekeys = new Map([1, 2, 3].map(n => [n, keyhelper.generatePreKey(n).keyPair]))
			const storage = {
				loadSession: () => this.record && SessionRecord.deserialize(this.record),
				storeSession: (_, record) => { this.record = JSON.parse(JSON.stringify(record.serialize())) },
				isTrustedIdentity: () => true,
				loadPreKey: n => this.prekeys.get(n),
				removePreKey: n => this.prekeys.delete(n),
				loadSignedPreKey: () => this.signed.keyPair,
				getOurRegistrationId: () => id,
				getOurIdentity: () => this.identity
			}
			const address = new ProtocolAddress('peer', 0)
			this.builder = new SessionBuilder(storage, address)
			this.cipher = new SessionCipher(storage, address)
		}
		start(other, preKeyId) {
			const { identity, registrationId, signed } = other
			return this.builder.initOutgoing({
				identityKey: identity.pubKey, registrationId,
				signedPreKey: { keyId: 1, publicKey: signed.keyPair.pubKey, signature: signed.signature },
				preKey: { keyId: preKeyId, publicKey: other.prekeys.get(preKeyId).pubKey }
			})
		}
		async encrypt(text) {
			const { type, body } = await this.cipher.encrypt(Buffer.from(text))
			return { kind: type === 3 ? 'pkmsg' : 'msg', body: Buffer.from(body, 'binary').toString('base64'), text }
		}
		async decrypt({ kind, body }) {
			const bytes = Buffer.from(body, 'base64')
			return kind === 'pkmsg' ? this.cipher.decryptPreKeyWhisperMessage(bytes) : this.cipher.decryptWhisperMessage(bytes)
		}
	}
	const hex = key => Buffer.from(key).toString('hex')
	const vectors = []
	const keep = (name, party, peer, arriving) => vectors.push({
		name, registrationId: party.registrationId, identityPrivate: hex(party.identity.privKey),
		peer: { registrationId: peer.registrationId, identityPrivate: hex(peer.identity.privKey), record: structuredClone(peer.record) },
		record: structuredClone(party.record), arriving
	})

	let [alice, bob] = [new Party(11), new Party(12)]
	await alice.start(bob, 1)
	const late = []
	late.push(await alice.encrypt('first, late'))
	await bob.decrypt(await alice.encrypt('second'))
	await alice.decrypt(await bob.encrypt('answer'))
	for (const turn of [1, 2, 3]) {
		late.push(await alice.encrypt(`late in turn ${turn}`))
		await bob.decrypt(await alice.encrypt(`turn ${turn}`))
		await alice.decrypt(await bob.encrypt(`answer ${turn}`))
	}
	late.push(await alice.encrypt('next'))
	keep('late messages of four turns', bob, alice, late)

	;[alice, bob] = [new Party(21), new Party(22)]
	await alice.start(bob, 1)
	await bob.decrypt(await alice.encrypt('first'))
	const old = await alice.encrypt('on the first session')
	await alice.start(bob, 2)
	const fresh = await alice.encrypt('on the second')
	await bob.decrypt(fresh)
	keep('a replaced session', bob, alice, [old, await alice.encrypt('on the second again')])

	;[alice, bob] = [new Party(31), new Party(32)]
	await alice.start(bob, 1)
	await bob.decrypt(await alice.encrypt('first'))
	keep('a pending set-up', alice, bob, [await bob.encrypt('answer')])
	writeFileSync(join(out, 'sessions.json'), JSON.stringify(vectors, null, 1) + '\n')
	console.log('sessions', vectors.length)
}

try {
	console.info = console.warn = () => {}
	mkdirSync(out, { recursive: true })
	await makeSessions()
	const sandbox = await Sandbox.start(process.argv[2])
	let number = 6281200000040
	for (const version of [7, 6]) {
		for (const migrated of [true, false]) await makeFolder(sandbox, version, migrated, number += 10)
	}
} finally {
	children.forEach(child => child.kill())
	rmSync(scratch, { recursive: true })
}
process.exit(0)
