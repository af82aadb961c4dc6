// A whole Noise handshake of Baileys' client with fixed keys, and its client payloads.
// Usage: node tests/vectors/generate/noise.mjs <node_modules with @whiskeysockets/baileys>
//
// The server is written here with Baileys' primitives. Baileys does not check signatures (its `Curve.verify` ignores
// the result), which is why it accepts our own root; the signatures themselves are made by its curve25519-js.

import { bytes, hex, load, loadPackage, write } from './common.mjs'

const { makeNoiseHandler } = await load('lib/Utils/noise-handler.js')
const { Curve, aesDecryptGCM, aesEncryptGCM, hkdf, sha256 } = await load('lib/Utils/crypto.js')
const { generateLoginNode, generateRegistrationNode } = await load('lib/Utils/validate-connection.js')
const { NOISE_WA_HEADER, NOISE_MODE, WA_CERT_DETAILS } = await load('lib/Defaults/index.js')
const { encodeBinaryNode } = await load('lib/WABinary/encode.js')
const { proto } = await load('WAProto/index.js')
const { default: curve25519 } = await loadPackage('curve25519-js/lib/index.js')

function keyPair(label) {
	const { public: pub, private: priv } = curve25519.generateKeyPair(bytes(label, 32))
	return { public: Buffer.from(pub), private: Buffer.from(priv) }
}
const sign = (pair, message) => Buffer.from(curve25519.sign(pair.private, message, null))

const now = 1_800_000_000
const logger = { level: 'silent', child: () => logger, trace() {}, debug() {}, info() {}, warn() {}, error() {} }

/** The responder's half of Noise XX, as in protocol revision 34. */
function makeServer({ ephemeral, staticPair, chain }) {
	let hash = Buffer.from(NOISE_MODE)
	let salt = hash
	let key = hash
	let counter = 0
	const iv = n => { const b = Buffer.alloc(12); b.writeUInt32BE(n, 8); return b }
	const mixHash = data => (hash = sha256(Buffer.concat([hash, data])))
	const expand = data => { const out = Buffer.from(hkdf(Buffer.from(data), 64, { salt, info: '' })); return [out.subarray(0, 32), out.subarray(32)] }
	const mixKey = shared => { [salt, key] = expand(shared); counter = 0 }
	const encrypt = data => { const out = aesEncryptGCM(data, key, iv(counter++), hash); mixHash(out); return out }
	const decrypt = data => { const out = aesDecryptGCM(data, key, iv(counter++), hash); mixHash(data); return out }
	mixHash(NOISE_WA_HEADER)
	return {
		hello(clientEphemeral) {
			mixHash(clientEphemeral)
			mixHash(ephemeral.public)
			mixKey(Curve.sharedKey(ephemeral.private, clientEphemeral))
			const encryptedStatic = encrypt(staticPair.public)
			mixKey(Curve.sharedKey(staticPair.private, clientEphemeral))
			const payload = encrypt(chain)
			return proto.HandshakeMessage.encode({ serverHello: { ephemeral: ephemeral.public, static: encryptedStatic, payload } }).finish()
		},
		finish({ clientFinish }) {
			const clientStatic = decrypt(clientFinish.static)
			mixKey(Curve.sharedKey(ephemeral.private, clientStatic))
			const payload = decrypt(clientFinish.payload)
			const [read, write] = expand(Buffer.alloc(0))
			let [r, w] = [0, 0]
			return {
				clientStatic, payload,
				read: data => aesDecryptGCM(data, read, iv(r++), Buffer.alloc(0)),
				write: data => aesEncryptGCM(data, write, iv(w++), Buffer.alloc(0)),
			}
		},
	}
}

function makeChain({ root, intermediate, staticPair }) {
	const certificate = (issuer, details) => {
		const encoded = proto.CertChain.NoiseCertificate.Details.encode(details).finish()
		return { details: encoded, signature: sign(issuer, encoded) }
	}
	const validity = { notBefore: now - 1000, notAfter: now + 1000 }
	return Buffer.from(proto.CertChain.encode({
		leaf: certificate(intermediate, { serial: 12, issuerSerial: 11, key: staticPair.public, ...validity }),
		intermediate: certificate(root, { serial: 11, issuerSerial: 0, key: intermediate.public, ...validity }),
	}).finish())
}

async function handshake(name, routingInfo, clientPayload) {
	const key = label => keyPair(`${name} ${label}`)
	const keys = { root: key('root'), intermediate: key('intermediate'), staticPair: key('server static'), ephemeral: key('server ephemeral') }
	const [clientEphemeral, clientStatic] = [key('client ephemeral'), key('client static')]
	const chain = makeChain(keys)
	const server = makeServer({ ...keys, chain })

	const client = makeNoiseHandler({ keyPair: clientEphemeral, NOISE_HEADER: NOISE_WA_HEADER, logger, routingInfo })
	const first = client.encodeFrame(proto.HandshakeMessage.encode({ clientHello: { ephemeral: clientEphemeral.public } }).finish())
	const serverHello = server.hello(clientEphemeral.public)
	const encryptedStatic = client.processHandshake(proto.HandshakeMessage.decode(serverHello), clientStatic)
	const finish = client.encodeFrame(proto.HandshakeMessage.encode({ clientFinish: { static: encryptedStatic, payload: client.encrypt(clientPayload) } }).finish())
	await client.finishInit()
	const connection = server.finish(proto.HandshakeMessage.decode(finish.subarray(3)))
	if (!connection.payload.equals(Buffer.from(clientPayload))) throw new Error('the server read another payload')

	const transport = []
	for (let i = 0; i < 4; i++) {
		const up = encodeBinaryNode({ tag: 'iq', attrs: { id: `up${i}`, type: 'get' } })
		const frame = client.encodeFrame(up)
		if (!connection.read(frame.subarray(3)).equals(up)) throw new Error('the server read another frame')
		const down = encodeBinaryNode({ tag: 'iq', attrs: { id: `down${i}`, type: 'result' } })
		const encrypted = connection.write(down)
		const received = []
		await client.decodeFrame(Buffer.concat([Buffer.from([0, 0, encrypted.length]), encrypted]), node => received.push(node))
		if (received[0]?.attrs.id !== `down${i}`) throw new Error('the client read another frame')
		transport.push({ up: hex(up), up_frame: hex(frame), down: hex(down), down_frame: hex(encrypted) })
	}
	return {
		name, now,
		root_public: hex(keys.root.public),
		chain: hex(chain),
		server_static_private: hex(keys.staticPair.private),
		server_ephemeral_private: hex(keys.ephemeral.private),
		client_ephemeral_private: hex(clientEphemeral.private),
		client_static_private: hex(clientStatic.private),
		client_static_public: hex(clientStatic.public),
		routing_info: routingInfo ? hex(routingInfo) : null,
		client_payload: hex(clientPayload),
		// Everything the client sends first: intro, stream header, frame.
		first: hex(first),
		// Without its length.
		server_hello: hex(serverHello),
		finish: hex(finish),
		transport,
	}
}

const config = { version: [2, 3000, 1043857760], browser: ['Ubuntu', 'Chrome', '22.04.4'], countryCode: 'US', syncFullHistory: false }
const identity = keyPair('identity')
const signedPreKey = keyPair('signed prekey')
const device = {
	registrationId: 12345,
	signedIdentityKey: identity,
	signedPreKey: { keyId: 1, keyPair: signedPreKey, signature: sign(identity, Buffer.concat([Buffer.from([5]), signedPreKey.public])) },
}
const payloads = [
	{ name: 'registration', version: config.version, registration_id: device.registrationId, identity: hex(identity.public), signed_prekey_id: 1, signed_prekey: hex(signedPreKey.public), signature: hex(device.signedPreKey.signature), payload: hex(proto.ClientPayload.encode(generateRegistrationNode(device, config)).finish()) },
	{ name: 'login', version: config.version, jid: '6281200000001:12@s.whatsapp.net', payload: hex(proto.ClientPayload.encode(generateLoginNode('6281200000001:12@s.whatsapp.net', config)).finish()) },
]

write('noise/handshakes.json', [
	await handshake('registration', undefined, Buffer.from(payloads[0].payload, 'hex')),
	await handshake('login', bytes('routing info', 12), Buffer.from(payloads[1].payload, 'hex')),
])
write('noise/payloads.json', payloads)
write('noise/constants.json', [{ stream_header: hex(NOISE_WA_HEADER), root_public: hex(WA_CERT_DETAILS.PUBLIC_KEY), root_serial: WA_CERT_DETAILS.SERIAL }])
