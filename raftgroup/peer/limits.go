package peer

import "time"

// Protocol versions. Version 1 encodes every Raft message as protobuf; version
// 2 has a compact form for heartbeats and their responses; in version 3 reports
// bring what has changed, in a form of the nodes' own making.
// SecretBytesMin is the length of the shortest cluster secret: what a handshake shows of it
// can be used to guess a short one.
const SecretBytesMin = 32

const (
	versionOldest = 1
	versionNewest = 3
)

// Every bound of the transport that is not in [Config]. Sizes are of a frame's
// payload unless said otherwise.
const (
	// MessageBytesMax bounds an encoded Raft message. Entries hold up to a
	// client's largest frame (16 MiB), and Raft may put a few in one message.
	MessageBytesMax = 64 << 20
	// MessagesPerFrameMax and EntriesPerFrameMax bound what a frame makes the
	// receiver allocate beyond its own length: a message takes some 200 bytes
	// of memory but may take 8 on the wire, an entry 48 and 2.
	MessagesPerFrameMax = 16 << 10
	EntriesPerFrameMax  = 1 << 20
	// CallBytesMax bounds the body of a call and of its reply.
	CallBytesMax = 4 << 20
	// StrangerCallBytesMax bounds the call of a node without a cluster, which
	// has not been admitted.
	StrangerCallBytesMax = 64 << 10
	// VerbBytesMax bounds a call's verb.
	VerbBytesMax = 64
	// ReportBytesMax bounds a report; what takes more goes in several.
	ReportBytesMax = 64 << 10
	// SnapshotHeaderBytesMax bounds a snapshot's header, and its resume token.
	SnapshotHeaderBytesMax = 1 << 20
	// SnapshotChunkBytesMax bounds one chunk of a snapshot.
	SnapshotChunkBytesMax = 4 << 20
	// CallsPerPeerMax bounds the unanswered calls to a peer; more wait.
	CallsPerPeerMax = 64
	// CallsRunningMax bounds the calls of one peer that run here; more are
	// refused. It has room for some that their caller gave up.
	CallsRunningMax = 2 * CallsPerPeerMax
	// CallTimeoutMax bounds how long a call may run; it is also the timeout of
	// a call whose context has no deadline.
	CallTimeoutMax = time.Minute

	frameBytesMax = MessageBytesMax + 64<<10 // one largest message and its record's head; an engine's frame

	// frameBytesTarget closes a frame: large enough that header, checksum and
	// system call cost nothing per message, small enough that the receiver
	// works on one while the next arrives. A larger message has its own frame.
	frameBytesTarget = 256 << 10
	// frameBytesFirst is the room of a fresh frame; it grows by doubling.
	frameBytesFirst = 4 << 10
	// readBufferBytes holds most frames whole, so that they are decoded in
	// place.
	readBufferBytes = 64 << 10
	// trustBytes is how much of a frame must have arrived before room is made
	// for all of it: a lie about a length costs this much.
	trustBytes = 1 << 20
	// writeBytes is the unit in which the writer goroutine writes; each must
	// make progress within Config.WriteTimeout.
	writeBytes = 256 << 10

	handshakeBytesMax = 4 << 10 // body of one handshake record
	stringBytesMax    = 512     // each string of an Identity, and a refusal
	errorBytesMax     = 4 << 10 // the text of an error that travels
	engineBytesMax    = 32      // the name of an engine: less than credentialsBytes, which may stand before it

	foreignBytesMax = 64                     // by which another protocol is told, at most
	dismissTime     = time.Second            // for a foreign caller to read its answer and close
	remainderTime   = 100 * time.Millisecond // for the rest of a foreign server's answer
	dismissBytes    = 64 << 10               // that are read of it meanwhile

	handshakesMax       = 64 // connections whose handshake or single call has not come; the oldest gives way
	snapshotsWaitingMax = 64 // incoming snapshots, those that wait for their turn included
	clientStreamsMax    = 16 << 10

	failureLogInterval = time.Minute

	// linesOfPeers is how many lines about connections of peers are written in
	// a while: one for each peer of an ordinary cluster.
	linesOfPeers = 8
)
