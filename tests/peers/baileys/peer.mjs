// Real Baileys clients for the worker's tests and its load harness.
//
// One process holds any number of clients, each under a name of its own ("peer"). Standard input takes one command
// per line, standard output gives one answer or event per line, both JSON; standard error is the log.
//
//   > {"id":1,"peer":"a","do":"start","url":"wss://127.0.0.1:4433/ws/chat","caFile":"ca.pem","authDir":"/tmp/a"}
//   < {"peer":"a","event":"qr","qr":"2@…"}
//   < {"id":1,"ok":{}}
//
// An answer carries the command's `id` and either `ok` or `error`. Commands of one client may overlap.
// `BAILEYS_LOG` (silent, error, warn, info, debug, trace) sets how much Baileys says; `BAILEYS_PACKAGE` names another
// Baileys than the one installed here: the path of its `lib/index.js`. `BAILEYS_LATENCY_MS` delays what the server says.

import { readFileSync } from 'node:fs'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { Agent } from 'node:https'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

// libsignal prints whole sessions with console.log: standard output belongs to the protocol above.
for (const method of ['log', 'info', 'debug', 'warn']) console[method] = console.error.bind(console)

const baileys = await import(process.env.BAILEYS_PACKAGE ?? '@whiskeysockets/baileys')
const { makeWASocket, useMultiFileAuthState, initAuthCreds, normalizeMessageContent, proto, DisconnectReason } = baileys

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent']

/** What Baileys expects of a pino logger, without its worker threads. */
function makeLogger(name, level) {
	const logger = { level, child: () => logger }
	for (const word of LEVELS.slice(0, -1)) {
		const shown = LEVELS.indexOf(word) >= LEVELS.indexOf(level)
		logger[word] = shown ? (...args) => console.error(name, word, ...args) : () => {}
	}
	return logger
}

function write(line) {
	process.stdout.write(JSON.stringify(line) + '\n')
}

/** Digits become a phone number's JID; anything with an @ is one already. */
function toJid(to) {
	return to.includes('@') ? to : `${to}@s.whatsapp.net`
}

function textOf(message) {
	const content = normalizeMessageContent(message) ?? {}
	return content.conversation ?? content.extendedTextMessage?.text
}

/** Auth state that is gone with the process: the load harness measures Baileys without its file writes. */
function memoryAuthState() {
	const store = new Map()
	return {
		state: {
			creds: initAuthCreds(),
			keys: {
				get: async (type, ids) => Object.fromEntries(ids.map(id => [id, store.get(`${type}/${id}`)])),
				set: async data => {
					for (const [type, values] of Object.entries(data)) {
						for (const [id, value] of Object.entries(values)) {
							if (value) store.set(`${type}/${id}`, value)
							else store.delete(`${type}/${id}`)
						}
					}
				}
			}
		},
		saveCreds: async () => {}
	}
}

/**
 * Baileys 6.7 loses what arrives in the moment in which it ends its handshake. No real server is that near.
 */
function delayArrivals(ws, milliseconds) {
	const emit = ws.emit.bind(ws)
	ws.emit = (event, ...args) => {
		if (event !== 'message' && event !== 'close') return emit(event, ...args)
		setTimeout(() => emit(event, ...args), milliseconds)
		return true
	}
}

class Peer {
	constructor(name) {
		this.name = name
		/** Sent messages by id: Baileys asks for them again when a retry receipt comes. */
		this.sent = new Map()
		/** Ids the server has not acknowledged, with whoever waits for it. */
		this.unacked = new Map()
		this.received = 0
		this.quiet = false
	}

	emit(event, fields = {}) {
		if (!this.quiet || event !== 'message') write({ peer: this.name, event, ...fields })
	}

	/** `history`: let the account push its history; without it a first login is usable at once. */
	async start({ url, caFile, authDir, history = false, quiet = false }) {
		if (this.sock) throw new Error('already started')
		this.options = { url, caFile, authDir, history }
		this.quiet = quiet
		this.auth ??= authDir ? await useMultiFileAuthState(authDir) : memoryAuthState()
		this.stopping = false
		this.open()
	}

	/** One connection. After pairing the server asks for a second one; that happens here unasked. */
	open() {
		const { url, caFile, history } = this.options
		const { state, saveCreds } = this.auth
		const sock = makeWASocket({
			auth: state,
			waWebSocketUrl: url,
			agent: caFile ? new Agent({ ca: readFileSync(caFile) }) : undefined,
			logger: makeLogger(this.name, process.env.BAILEYS_LOG ?? 'silent'),
			getMessage: async key => this.sent.get(key.id),
			// Nothing here may look beyond the given URL: no previews, no history download from a media host.
			generateHighQualityLinkPreview: false,
			linkPreviewImageThumbnailWidth: 0,
			syncFullHistory: false,
			shouldSyncHistoryMessage: () => history,
			retryRequestDelayMs: 10
		})
		this.sock = sock
		if (process.env.BAILEYS_LATENCY_MS) delayArrivals(sock.ws, Number(process.env.BAILEYS_LATENCY_MS))
		sock.ev.on('creds.update', saveCreds)
		sock.ev.on('connection.update', update => this.onConnection(sock, update))
		sock.ev.on('messages.upsert', ({ messages, type }) => messages.forEach(m => this.onMessage(m, type)))
		sock.ev.on('messages.update', updates => updates.forEach(u => this.onUpdate(u)))
		sock.ev.on('message-receipt.update', updates => updates.forEach(({ key, receipt }) =>
			this.emit('receipt', {
				id: key.id,
				chat: key.remoteJid,
				participant: receipt.userJid,
				read: Boolean(receipt.readTimestamp)
			})))
		sock.ev.on('groups.upsert', groups => groups.forEach(({ id, subject }) => this.emit('group', { group: id, subject })))
		sock.ws.on('CB:ack,class:message', ({ attrs }) => this.onAck(attrs))
		sock.ws.on('CB:receipt,type:retry', ({ attrs }) =>
			this.emit('retryAsked', { id: attrs.id, from: attrs.participant ?? attrs.from }))
	}

	onConnection(sock, { connection, lastDisconnect, qr, isNewLogin, receivedPendingNotifications }) {
		if (sock !== this.sock) return
		if (qr) this.emit('qr', { qr })
		if (isNewLogin) this.emit('paired')
		if (receivedPendingNotifications) this.emit('ready')
		if (connection === 'open') this.emit('open', this.info())
		if (connection !== 'close') return
		const code = lastDisconnect?.error?.output?.statusCode
		for (const waiter of this.unacked.values()) waiter({ error: 'closed' })
		this.unacked.clear()
		this.sock = undefined
		if (code === DisconnectReason.restartRequired && !this.stopping) this.open()
		else this.emit('close', { code, reason: lastDisconnect?.error?.message })
	}

	onMessage(message, type) {
		const { key, messageStubType } = message
		const fields = {
			id: key.id,
			chat: key.remoteJid,
			chatAlt: key.remoteJidAlt,
			sender: key.participant ?? key.remoteJid,
			senderAlt: key.participantAlt ?? key.remoteJidAlt,
			fromMe: Boolean(key.fromMe)
		}
		if (messageStubType === proto.WebMessageInfo.StubType.CIPHERTEXT) {
			this.emit('undecryptable', { ...fields, why: message.messageStubParameters?.[0] })
			return
		}
		const text = textOf(message.message)
		if (text === undefined) return
		if (!fields.fromMe) this.received += 1
		this.emit('message', { ...fields, text, type })
	}

	onUpdate({ key, update }) {
		// A message that could be read only after a retry arrives as the update of its placeholder.
		if (update.message) this.onMessage({ key, ...update }, 'retried')
		if (update.status !== undefined && update.status !== null) {
			this.emit('status', { id: key.id, chat: key.remoteJid, status: proto.WebMessageInfo.Status[update.status] })
		}
	}

	/** `phash`: the server names the devices that should have got the message because some did not. */
	onAck({ id, error, phash }) {
		this.unacked.get(id)?.({ error, phash })
		this.unacked.delete(id)
		if (!this.quiet) this.emit('ack', { id, error })
	}

	connected() {
		if (!this.sock) throw new Error('not started')
		return this.sock
	}

	info() {
		const { me, registered } = this.auth?.state.creds ?? {}
		return { jid: me?.id, lid: me?.lid, registered, received: this.received }
	}

	async pairCode({ phone }) {
		return { code: await this.connected().requestPairingCode(phone) }
	}

	/** Answers when the message is on the wire, or with `acked: true` when the server has it. */
	async sendText({ to, text, acked = false }) {
		const sock = this.connected()
		const messageId = baileys.generateMessageIDV2(sock.user?.id)
		const ack = acked ? new Promise(resolve => this.unacked.set(messageId, resolve)) : undefined
		this.sent.set(messageId, { extendedTextMessage: { text } })
		const message = await sock.sendMessage(toJid(to), { text }, { messageId })
		this.sent.set(messageId, message.message)
		const { error, phash } = (await ack) ?? {}
		if (error) throw new Error(`server refused: ${error}`)
		return { id: messageId, toAll: phash === undefined }
	}

	/** `count` texts to `to`, at most `window` of them without an ack. For the load harness. */
	async blast({ to, count, text, window = 16 }) {
		let next = 0
		const worker = async () => {
			while (next < count) {
				next += 1
				await this.sendText({ to, text, acked: true })
				this.sent.clear()
			}
		}
		await Promise.all(Array.from({ length: Math.min(window, count) }, worker))
		return { sent: count }
	}

	async createGroup({ subject, participants }) {
		const group = await this.connected().groupCreate(subject, participants.map(toJid))
		return { group: group.id }
	}

	/** `action`: add, remove, promote, demote. */
	async changeGroup({ group, participants, action }) {
		return { result: await this.connected().groupParticipantsUpdate(group, participants.map(toJid), action) }
	}

	/** `message`: its id. */
	async markRead({ chat, message, participant }) {
		await this.connected().readMessages([{ remoteJid: toJid(chat), id: message, participant }])
		return {}
	}

	/** File names of the Signal sessions with one user, in either namespace. `user`: phone number or LID digits. */
	async sessionFiles(users) {
		const names = await readdir(this.options.authDir)
		return names.filter(name => users.some(user => new RegExp(`^session-${user}(_\\d+)?\\.\\d+\\.json$`).test(name)))
	}

	/** Loses every Signal session with these users, as after a restored backup. */
	async forgetSessions({ users }) {
		const files = await this.sessionFiles(users)
		const ids = files.map(name => name.slice('session-'.length, -'.json'.length))
		await this.auth.state.keys.set({ session: Object.fromEntries(ids.map(id => [id, null])) })
		return { forgotten: ids.length }
	}

	/** Spoils the sending chains with these users: whatever is sent next cannot be decrypted there. */
	async breakSessions({ users }) {
		let broken = 0
		for (const file of await this.sessionFiles(users)) {
			const path = join(this.options.authDir, file)
			const record = JSON.parse(await readFile(path, 'utf8'))
			for (const session of Object.values(record._sessions ?? {})) {
				for (const chain of Object.values(session._chains)) {
					if (chain.chainType !== 1 || !chain.chainKey.key) continue
					const key = Buffer.from(chain.chainKey.key, 'base64')
					key[0] ^= 0xff
					chain.chainKey.key = key.toString('base64')
					broken += 1
				}
			}
			await writeFile(path, JSON.stringify(record))
		}
		return { broken }
	}

	/** Loses the sender keys others gave us for a group. */
	async forgetSenderKeys({ group }) {
		const names = await readdir(this.options.authDir)
		const own = [this.info().jid, this.info().lid].filter(Boolean).map(jid => jid.split(/[:@]/)[0])
		const ids = names
			.filter(name => name.startsWith(`sender-key-${group}--`) && !own.some(user => name.includes(`--${user}`)))
			.map(name => name.slice('sender-key-'.length, -'.json'.length))
		await this.auth.state.keys.set({ 'sender-key': Object.fromEntries(ids.map(id => [id, null])) })
		return { forgotten: ids.length }
	}

	/** Closes the connection; the auth state stays, and `start` goes on with it. */
	async stop() {
		this.stopping = true
		await this.sock?.end(undefined)
		await this.auth?.saveCreds()
		// What is read again on the next start is what is on disk.
		if (this.options?.authDir) this.auth = undefined
		return {}
	}
}

const COMMANDS = [
	'start', 'stop', 'info', 'pairCode', 'sendText', 'blast', 'createGroup', 'changeGroup', 'markRead',
	'forgetSessions', 'breakSessions', 'forgetSenderKeys'
]
const peers = new Map()

async function run({ peer: name, do: action, ...options }) {
	if (action === 'exit') process.exit(0)
	if (!COMMANDS.includes(action)) throw new Error(`no such command: ${action}`)
	if (!peers.has(name)) peers.set(name, new Peer(name))
	return (await peers.get(name)[action](options)) ?? {}
}

process.on('unhandledRejection', error => write({ event: 'fault', reason: String(error?.stack ?? error) }))

write({ event: 'hello', node: process.versions.node })
const lines = createInterface({ input: process.stdin })
lines.on('line', line => {
	const command = JSON.parse(line)
	run(command).then(
		ok => write({ id: command.id, ok }),
		error => write({ id: command.id, error: String(error?.message ?? error) })
	)
})
lines.on('close', () => process.exit(0))
