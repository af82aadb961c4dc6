// Makes the vectors in tests/vectors/signal with libsignal (npm, JavaScript) and Baileys.
//
//   npm install @whiskeysockets/baileys@7.0.0-rc14      (brings libsignal 6.0.0 and curve25519-js 0.0.4)
//   node tests/vectors/generate/signal.mjs <folder>/node_modules
//
// Every key comes from a counter-driven SHA-256, so that a second run gives the same files, except for sender keys,
// whose random source in Baileys cannot be replaced.

import { createHash, createPrivateKey, createPublicKey } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const modules = process.argv[2]
if (!modules) {
	console.error('usage: node signal.mjs <node_modules folder with @whiskeysockets/baileys 7.0.0-rc14>')
	process.exit(2)
}
const require = createRequire(join(resolve(modules), 'here.js'))
const libsignal = require('libsignal')
const curve = require('libsignal/src/curve.js')
const curveJs = require('curve25519-js')
const baileys = path => import(pathToFileURL(join(resolve(modules), '@whiskeysockets/baileys/lib', path)).href)
const group = await baileys('Signal/Group/index.js')
const { Curve, hmacSign } = await baileys('Utils/crypto.js')
const defaults = await baileys('Defaults/index.js')

const target = join(dirname(fileURLToPath(import.meta.url)), '..', 'signal')
const hex = bytes => Buffer.from(bytes).toString('hex')

let counter = 0
const bytes = length => {
	const blocks = []
	for (let have = 0; have < length; have += 32) {
		blocks.push(createHash('sha256').update(`whatsapp-worker signal vectors ${counter++}`).digest())
	}
	return Buffer.concat(blocks).subarray(0, length)
}

const privatePrefix = Buffer.from('302e020100300506032b656e04220420', 'hex')
const keyPair = () => {
	const privKey = Buffer.from(bytes(32))
	privKey[0] &= 0xf8
	privKey[31] = (privKey[31] & 0x7f) | 0x40
	const key = createPrivateKey({ key: Buffer.concat([privatePrefix, privKey]), format: 'der', type: 'pkcs8' })
	const pubKey = createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32)
	return { pubKey: Buffer.concat([Buffer.from([5]), pubKey]), privKey }
}

// Sessions carry their creation time.
Date.now = () => 1_790_000_000_000

// Keys that libsignal makes inside an operation of a party are noted in the order of their making.
let fresh = []
curve.generateKeyPair = () => {
	const pair = keyPair()
	fresh.push(hex(pair.privKey))
	return pair
}

class Party {
	constructor(registrationId) {
		this.registrationId = registrationId
		this.identity = keyPair()
		this.signedPreKey = { keyId: 1, pair: keyPair() }
		this.signedPreKey.signature = curve.calculateSignature(this.identity.privKey, this.signedPreKey.pair.pubKey)
		this.preKeys = new Map([1, 2, 3].map(id => [id, keyPair()]))
		this.sessions = new Map()
	}

	// The storage interface of libsignal.
	async getOurIdentity() { return this.identity }
	async getOurRegistrationId() { return this.registrationId }
	async isTrustedIdentity() { return true }
	async loadPreKey(id) { return this.preKeys.get(id) }
	async removePreKey(id) { this.preKeys.delete(id) }
	async loadSignedPreKey() { return this.signedPreKey.pair }
	async loadSession(name) { return this.sessions.get(name) }
	async storeSession(name, record) { this.sessions.set(name, record) }

	describe() {
		return {
			registration_id: this.registrationId,
			identity: hex(this.identity.privKey),
			signed_prekey: hex(this.signedPreKey.pair.privKey),
			signed_prekey_signature: hex(this.signedPreKey.signature),
			prekeys: Object.fromEntries([...this.preKeys].map(([id, pair]) => [id, hex(pair.privKey)]))
		}
	}

	bundle(preKeyId) {
		return {
			identityKey: this.identity.pubKey,
			registrationId: this.registrationId,
			signedPreKey: {
				keyId: this.signedPreKey.keyId,
				publicKey: this.signedPreKey.pair.pubKey,
				signature: this.signedPreKey.signature
			},
			preKey: preKeyId && { keyId: preKeyId, publicKey: this.preKeys.get(preKeyId).pubKey }
		}
	}
}

const address = new libsignal.ProtocolAddress('peer', 0)
const plaintext = (label, length) => Buffer.from((label + ' ').repeat(length).slice(0, length))

// A scenario is a list of steps: `start` (from a bundle), `encrypt` and `decrypt`.
const scenario = async (name, play) => {
	const parties = { alice: new Party(101), bob: new Party(202) }
	const vector = { name, parties: { alice: parties.alice.describe(), bob: parties.bob.describe() }, steps: [] }
	const cipher = who => new libsignal.SessionCipher(parties[who], address)
	const other = who => (who === 'alice' ? 'bob' : 'alice')
	const messages = []
	await play({
		async start(who, preKeyId) {
			fresh = []
			await new libsignal.SessionBuilder(parties[who], address).initOutgoing(parties[other(who)].bundle(preKeyId))
			vector.steps.push({ do: 'start', who, prekey_id: preKeyId ?? null, fresh })
		},
		async encrypt(who, text) {
			const { type, body } = await cipher(who).encrypt(text)
			messages.push({ who, type, body: Buffer.from(body), text })
			vector.steps.push({
				do: 'encrypt', who, kind: type === 3 ? 'pkmsg' : 'msg', plaintext: hex(text), ciphertext: hex(body)
			})
			return messages.length - 1
		},
		async decrypt(index) {
			const { who, type, body, text } = messages[index]
			fresh = []
			const reader = cipher(other(who))
			const read = await (type === 3 ? reader.decryptPreKeyWhisperMessage(body) : reader.decryptWhisperMessage(body))
			if (!text.equals(read)) throw new Error(`${name}: message ${index} differs`)
			vector.steps.push({ do: 'decrypt', who: other(who), message: index, fresh })
		}
	})
	vector.final = Object.fromEntries(
		['alice', 'bob'].map(who => [who, parties[who].sessions.get(address.toString()).serialize()])
	)
	return vector
}

const sessions = [
	await scenario('with a one-time prekey, in order', async s => {
		await s.start('alice', 1)
		await s.decrypt(await s.encrypt('alice', plaintext('hello', 5)))
		for (let turn = 0; turn < 4; turn++) {
			await s.decrypt(await s.encrypt('bob', plaintext('answer', 20 + turn)))
			await s.decrypt(await s.encrypt('bob', plaintext('and more', 16)))
			await s.decrypt(await s.encrypt('alice', plaintext('question', 31 + turn)))
		}
	}),
	await scenario('without a one-time prekey, set-up repeated until answered', async s => {
		await s.start('alice')
		const first = await s.encrypt('alice', plaintext('one', 100))
		const second = await s.encrypt('alice', plaintext('two', 1000))
		const third = await s.encrypt('alice', plaintext('three', 1))
		await s.decrypt(third)
		await s.decrypt(first)
		await s.decrypt(await s.encrypt('bob', plaintext('answer', 64)))
		await s.decrypt(await s.encrypt('alice', plaintext('after', 64)))
		await s.decrypt(second)
	}),
	await scenario('skipped and late messages over several turns', async s => {
		await s.start('bob', 3)
		await s.decrypt(await s.encrypt('bob', plaintext('start', 9)))
		const late = []
		for (let turn = 0; turn < 3; turn++) {
			for (const who of ['alice', 'bob']) {
				const sent = []
				for (let n = 0; n < 5; n++) sent.push(await s.encrypt(who, plaintext(`${who} ${turn} ${n}`, 40)))
				await s.decrypt(sent[3])
				await s.decrypt(sent[1])
				late.push(sent[0], sent[4])
			}
		}
		for (const index of late) await s.decrypt(index)
	}),
	await scenario('a far jump', async s => {
		await s.start('alice', 2)
		await s.decrypt(await s.encrypt('alice', plaintext('start', 9)))
		await s.decrypt(await s.encrypt('bob', plaintext('answer', 9)))
		let last
		for (let n = 0; n < 150; n++) last = await s.encrypt('alice', Buffer.from([n]))
		await s.decrypt(last)
	})
]
writeFileSync(join(target, 'sessions.json'), JSON.stringify(sessions, null, 1) + '\n')

// Signatures: with and without random bytes in the nonce.
const signatures = []
for (let n = 0; n < 16; n++) {
	const { privKey, pubKey } = keyPair()
	const message = bytes(n * 7)
	const random = bytes(64)
	signatures.push({
		private: hex(privKey),
		public: hex(pubKey.subarray(1)),
		message: hex(message),
		deterministic: hex(curve.calculateSignature(privKey, message)),
		random: hex(random),
		randomised: hex(curveJs.sign(privKey, message, random))
	})
}
writeFileSync(join(target, 'signatures.json'), JSON.stringify(signatures, null, 1) + '\n')

// Device identity, as a phone and a companion make it.
const devices = ['E2EE', 'HOSTED'].map(type => {
	const hosted = type === 'HOSTED'
	const [account, device] = [keyPair(), keyPair()]
	const [secret, details, outer] = [bytes(32), bytes(23), bytes(120)]
	const accountPrefix = hosted ? defaults.WA_ADV_HOSTED_ACCOUNT_SIG_PREFIX : defaults.WA_ADV_ACCOUNT_SIG_PREFIX
	const devicePrefix = hosted ? defaults.WA_ADV_HOSTED_DEVICE_SIG_PREFIX : defaults.WA_ADV_DEVICE_SIG_PREFIX
	const [accountKey, identity] = [account.pubKey.subarray(1), device.pubKey.subarray(1)]
	return {
		type,
		account: hex(accountKey),
		identity: hex(identity),
		details: hex(details),
		account_signature: hex(Curve.sign(account.privKey, Buffer.concat([accountPrefix, details, identity]))),
		device_signature: hex(Curve.sign(device.privKey, Buffer.concat([devicePrefix, details, identity, accountKey]))),
		secret: hex(secret),
		outer: hex(outer),
		hmac: hex(hmacSign(Buffer.concat([hosted ? accountPrefix : Buffer.alloc(0), outer]), secret))
	}
})
writeFileSync(join(target, 'adv.json'), JSON.stringify(devices, null, 1) + '\n')

// Sender keys: Baileys' own iteration gaps (0, 2, 4, …) included; a second SKDM in the middle, then a rotation.
const senderKeys = new Map()
const store = {
	async loadSenderKey(name) { return senderKeys.get(name.toString()) ?? new group.SenderKeyRecord() },
	async storeSenderKey(name, record) { senderKeys.set(name.toString(), record) }
}
const name = new group.SenderKeyName('120363000000000000@g.us', new libsignal.ProtocolAddress('222222222222222_1', 3))
const sender = []
for (let rotation = 0; rotation < 2; rotation++) {
	senderKeys.clear()
	for (let part = 0; part < 2; part++) {
		const skdm = await new group.GroupSessionBuilder(store).create(name)
		const [state] = senderKeys.get(name.toString()).serialize()
		const entry = {
			distribution: hex(skdm.serialize()),
			signing_private: hex(state.senderSigningKey.private),
			messages: []
		}
		for (let n = 0; n < 6; n++) {
			const text = plaintext(`rotation ${rotation} part ${part} message ${n}`, 10 + 13 * n)
			const message = await new group.GroupCipher(store, name).encrypt(text)
			entry.messages.push({ plaintext: hex(text), ciphertext: hex(message) })
		}
		sender.push(entry)
	}
}
writeFileSync(join(target, 'sender_keys.json'), JSON.stringify(sender, null, 1) + '\n')
