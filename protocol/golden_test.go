package protocol

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/golden and the seeds in testdata/fuzz")

// vector is one golden frame. layout names the fields of the body in order,
// each with its width in bytes, independently of the codec: "key:6s" is six
// bytes of text, "value:*s" the text up to the end.
type vector struct {
	name   string // of the file
	about  string
	id     uint64
	code   uint8
	flags  Flags
	ext    Extensions
	layout string
	m      message // nil: the body is raw
	raw    string
}

const (
	rowLayout     = "version:8 ttl_ms:8 value:*s"
	errorLayout   = "retry_after_ms:4 message_length:2 message:*s"
	putLayout     = "options:1 key_length:2 key:8s value:*s"
	previousHead  = "version:8 presence:1 previous_version:8 previous_ttl_ms:8"
	extensionBits = FlagExtensions
)

func request(o Opcode) uint8 { return uint8(o) }
func status(s Status) uint8  { return uint8(s) }

var vectors = []vector{
	{name: "hello_request", about: "A client without credentials opens a connection", id: 1, code: request(OpHello),
		layout: "version_min:1 version_max:1 features:8 name_length:2 name:9s user_length:2 secret_length:2",
		m:      &Hello{VersionMin: 1, VersionMax: 1, Features: FeatureSessions, Name: []byte("example/1")}},
	{name: "hello_reply", about: "The server accepts", id: 1, code: status(StatusOK), flags: FlagReply,
		layout: "version:1 features:8 node:8 cluster:8 connection:8 frame_bytes_max:4 key_bytes_max:4 value_bytes_max:4 in_flight_max:4 shards:2 server_version_length:2 server_version:*s",
		m: &HelloReply{Version: 1, Features: FeatureSessions, Node: 1, Cluster: 0x1122334455667788, Connection: 42,
			FrameBytesMax: FrameBytesMax, KeyBytesMax: KeyBytesMax, ValueBytesMax: ValueBytesMax, InFlightMax: 1024, Shards: 8, ServerVersion: []byte("1.0.0")}},
	{name: "ping_request", about: "A bare header", id: 2, code: request(OpPing)},
	{name: "ping_reply", about: "Likewise", id: 2, code: status(StatusOK), flags: FlagReply},
	{name: "ping_echo_request", about: "Whatever stands in the body comes back", id: 3, code: request(OpPing), layout: "body:*s", raw: "are you there?"},

	{name: "put_request", about: "greeting = hello", id: 4, code: request(OpPut), layout: putLayout,
		m: &Put{Key: []byte("greeting"), Value: []byte("hello")}},
	{name: "put_reply", about: "Stored as version 7", id: 4, code: status(StatusOK), flags: FlagReply,
		layout: "version:8 presence:1", m: &WriteReply{Version: 7}},
	{name: "put_request_options", about: "If the version is still 7: a value that lives for a minute. Answer with the previous one. Third write of a session, the first two are finished; the client waits 250 ms",
		id: 5, code: request(OpPut), flags: extensionBits,
		ext:    Extensions{DeadlineMillis: 250, Session: 0x0123456789abcdef, Sequence: 3, Acknowledged: 2},
		layout: "options:1 key_length:2 ttl_ms:8 if_version:8 key:8s value:*s",
		m:      &Put{Flags: WriteTTL | WriteIfVersion | WriteReturnPrevious, TTLMillis: 60_000, Version: 7, Key: []byte("greeting"), Value: []byte("bye")}},
	{name: "put_reply_previous", about: "Stored, with the previous row", id: 5, code: status(StatusOK), flags: FlagReply,
		layout: previousHead + " previous_value:*s", m: &WriteReply{Version: 9, HasPrevious: true, PreviousVersion: 7, PreviousValue: []byte("hello")}},
	{name: "put_reply_previous_omitted", about: "Stored; there was a previous row, but its value is not delivered", id: 5, code: status(StatusOK), flags: FlagReply,
		layout: previousHead, m: &WriteReply{Version: 9, HasPrevious: true, PreviousOmitted: true, PreviousVersion: 7}},
	{name: "put_condition_failed", about: "Nothing was changed; the key has version 8", id: 5, code: status(StatusConditionFailed), flags: FlagReply,
		layout: "version:8 presence:1", m: &WriteReply{Version: 8}},
	{name: "put_condition_failed_previous", about: "Nothing was changed; the row that is there was asked for", id: 5, code: status(StatusConditionFailed), flags: FlagReply,
		layout: previousHead + " previous_value:*s", m: &WriteReply{Version: 8, HasPrevious: true, PreviousVersion: 8, PreviousValue: []byte("hello")}},

	{name: "get_request", about: "Without options", id: 6, code: request(OpGet), layout: "key:*s", m: &Key{[]byte("greeting")}},
	{name: "get_reply", about: "Version 7, does not expire", id: 6, code: status(StatusOK), flags: FlagReply,
		layout: rowLayout, m: &RowReply{Version: 7, Value: []byte("hello")}},
	{name: "get_not_found", about: "The body is empty", id: 6, code: status(StatusNotFound), flags: FlagReply},
	{name: "get_request_session", about: "Not older than version 9, traced, for a client that knows slot map epoch 1", id: 7, code: request(OpGet), flags: extensionBits,
		ext: Extensions{Consistency: SessionReads, Token: 9, HasTrace: true, Epoch: 1, Trace: Trace{
			TraceID: [16]byte{0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36},
			SpanID:  [8]byte{0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7}, Flags: 1}},
		layout: "key:*s", m: &Key{[]byte("greeting")}},
	{name: "get_reply_stale", about: "Answered by a replica 12 ms behind; node 2 leads the shard", id: 7, code: status(StatusOK), flags: FlagReply | extensionBits,
		ext: Extensions{Leader: 2, HasAge: true, AgeMillis: 12}, layout: rowLayout, m: &RowReply{Version: 9, TTLMillis: 59_000, Value: []byte("bye")}},
	{name: "exists_request", about: "Does the key exist?", id: 8, code: request(OpExists), layout: "key:*s", m: &Key{[]byte("greeting")}},
	{name: "exists_reply", about: "It does; the value is left out", id: 8, code: status(StatusOK), flags: FlagReply,
		layout: "version:8 ttl_ms:8", m: &RowReply{Version: 9, TTLMillis: 58_000}},

	{name: "delete_request", about: "Without condition", id: 9, code: request(OpDelete), layout: "options:1 key:*s", m: &Delete{Key: []byte("greeting")}},
	{name: "delete_request_version", about: "If the version is 9", id: 9, code: request(OpDelete), layout: "options:1 if_version:8 key:*s",
		m: &Delete{Flags: WriteIfVersion, Version: 9, Key: []byte("greeting")}},
	{name: "delete_reply", about: "The deletion is version 10", id: 9, code: status(StatusOK), flags: FlagReply, layout: "version:8 presence:1", m: &WriteReply{Version: 10}},
	{name: "delete_not_found", about: "There was nothing to delete", id: 9, code: status(StatusNotFound), flags: FlagReply, layout: "version:8 presence:1", m: &WriteReply{}},
	{name: "delete_request_version_zero", about: "Only if the key does not exist, and then NOT_FOUND", id: 9, code: request(OpDelete), layout: "options:1 if_version:8 key:*s",
		m: &Delete{Flags: WriteIfVersion, Key: []byte("greeting")}},
	{name: "incr_request", about: "Subtract 2", id: 10, code: request(OpIncr), layout: "delta:8i key:*s", m: &Incr{-2, []byte("visits")}},
	{name: "incr_reply", about: "It is -2 now", id: 10, code: status(StatusOK), flags: FlagReply, layout: "version:8 value:8i", m: &IncrReply{11, -2}},
	{name: "incr_not_integer", about: "The value is not a number: an error body", id: 10, code: status(StatusNotInteger), flags: FlagReply,
		layout: errorLayout, m: &ErrorReply{0, []byte("value is not a decimal 64-bit integer")}},
	{name: "expire_request", about: "Live for one second more", id: 11, code: request(OpExpire), layout: "ttl_ms:8 key:*s", m: &Expire{1000, []byte("visits")}},
	{name: "expire_reply", about: "Done, as version 12", id: 11, code: status(StatusOK), flags: FlagReply, layout: "version:8 presence:1", m: &WriteReply{Version: 12}},
	{name: "persist_request", about: "Live for ever", id: 12, code: request(OpPersist), layout: "key:*s", m: &Key{[]byte("visits")}},
	{name: "persist_reply", about: "Done, as version 13", id: 12, code: status(StatusOK), flags: FlagReply, layout: "version:8 presence:1", m: &WriteReply{Version: 13}},

	{name: "put_request_expire_at", about: "A value that expires at the end of the year 2030", id: 24, code: request(OpPut),
		layout: "options:1 key_length:2 expire_at_ms:8 key:8s value:*s",
		m:      &Put{Flags: WriteExpireAt, TTLMillis: 1_924_991_999_000, Key: []byte("greeting"), Value: []byte("hello")}},
	{name: "append_request", about: "Add two bytes", id: 25, code: request(OpAppend), layout: "key_length:2 key:8s value:*s",
		m: &Append{[]byte("greeting"), []byte("!\n")}},
	{name: "append_reply", about: "The value has 7 bytes now", id: 25, code: status(StatusOK), flags: FlagReply, layout: "version:8 length:8", m: &IncrReply{15, 7}},
	{name: "append_too_large", about: "The value would be over the limit: an error body", id: 25, code: status(StatusTooLarge), flags: FlagReply,
		layout: errorLayout, m: &ErrorReply{0, []byte("a size limit is exceeded")}},
	{name: "setrange_request", about: "Write over the first two bytes", id: 26, code: request(OpSetRange), layout: "offset:4 key_length:2 key:8s value:*s",
		m: &SetRange{0, []byte("greeting"), []byte("HE")}},
	{name: "setrange_reply", about: "The value still has 7 bytes", id: 26, code: status(StatusOK), flags: FlagReply, layout: "version:8 length:8", m: &IncrReply{16, 7}},
	{name: "incrfloat_request", about: "Add a tenth", id: 27, code: request(OpIncrFloat), layout: "key_length:2 key:5s increment:*s",
		m: &IncrFloat{[]byte("price"), []byte("0.1")}},
	{name: "incrfloat_reply", about: "It is 10.6 now", id: 27, code: status(StatusOK), flags: FlagReply, layout: "version:8 number:*s", m: &FloatReply{17, []byte("10.6")}},
	{name: "incrfloat_not_float", about: "The value is not a number: an error body", id: 27, code: status(StatusNotFloat), flags: FlagReply,
		layout: errorLayout, m: &ErrorReply{0, []byte("value or increment is not a valid number")}},
	{name: "setexpiry_request", about: "Expire at the end of the year 2030, if that is later than now; answer with the row", id: 28, code: request(OpSetExpiry),
		layout: "options:1 time_ms:8 key:*s",
		m:      &SetExpiry{ExpiryAt | ExpiryIfSome | ExpiryIfLater | ExpiryReturnRow, 1_924_991_999_000, []byte("price")}},
	{name: "setexpiry_reply", about: "Done, as version 18; the row had 30 s left", id: 28, code: status(StatusOK), flags: FlagReply,
		layout: previousHead + " previous_value:*s",
		m:      &WriteReply{Version: 18, HasPrevious: true, PreviousVersion: 17, PreviousTTLMillis: 30_000, PreviousValue: []byte("10.6")}},
	{name: "expiry_request", about: "When does the key expire?", id: 29, code: request(OpExpiry), layout: "key:*s", m: &Key{[]byte("price")}},
	{name: "expiry_reply", about: "At the end of the year 2030", id: 29, code: status(StatusOK), flags: FlagReply, layout: "version:8 expire_at_ms:8",
		m: &ExpiryReply{18, 1_924_991_999_000}},
	{name: "rename_request", about: "Copy {a}x to {a}y, unless that exists", id: 30, code: request(OpRename), layout: "options:1 source_length:2 source:4s destination:*s",
		m: &Rename{RenameKeepSource | RenameIfAbsent, []byte("{a}x"), []byte("{a}y")}},
	{name: "rename_reply", about: "Done; {a}y has version 19", id: 30, code: status(StatusOK), flags: FlagReply, layout: "version:8 presence:1", m: &WriteReply{Version: 19}},
	{name: "rename_not_found", about: "There is no {a}x", id: 30, code: status(StatusNotFound), flags: FlagReply, layout: "version:8 presence:1", m: &WriteReply{}},
	{name: "rename_condition_failed", about: "{a}y exists, as version 12, and must not", id: 30, code: status(StatusConditionFailed), flags: FlagReply,
		layout: "version:8 presence:1", m: &WriteReply{Version: 12}},

	{name: "getrange_request", about: "The last two bytes", id: 33, code: request(OpGetRange), layout: "start:8 end:8 key:*s", m: &GetRange{-2, -1, []byte("greeting")}},
	{name: "getrange_reply", about: "Of 7 bytes", id: 33, code: status(StatusOK), flags: FlagReply, layout: "version:8 length:4 part:*s", m: &RangeReply{15, 7, []byte("!\n")}},
	{name: "txn_too_large", about: "The results would not fit in one frame: nothing was done", id: 34, code: status(StatusTooLarge), flags: FlagReply,
		layout: errorLayout, m: &ErrorReply{0, []byte("a size limit is exceeded")}},
	{name: "watch_request", about: "Watch a key", id: 31, code: request(OpWatch), layout: "key:*s", m: &Key{[]byte("price")}},
	{name: "watch_reply", about: "It does not exist; its shard is at revision 40", id: 31, code: status(StatusOK), flags: FlagReply, layout: "version:8 revision:8",
		m: &WatchReply{0, 40}},
	{name: "txn_request_absent", about: "Put a lock, unless somebody has had it since revision 40", id: 32, code: request(OpTxn),
		layout: "compare_count:4 target:1 relation:1 key_length:2 key:4s revision:8 then_count:4 opcode:1 body_length:4 put_options:1 put_key_length:2 put_key:4s put_value:2s else_count:4",
		m: &Txn{Compares: []Compare{{Target: CompareAbsent, Relation: Equal, Key: []byte("lock"), Version: 40}},
			Then: Ops{{OpPut, wire(&Put{Key: []byte("lock"), Value: []byte("me")})}}}},

	{name: "delete_range_request", about: "All keys that begin with \"user:\"", id: 35, code: request(OpDeleteRange),
		layout: "options:1 start_length:2 start:5s end_length:2", m: &DeleteRange{Flags: DeleteRangePrefix, Start: []byte("user:")}},
	{name: "delete_range_request_shard", about: "Everything in shard 3", id: 36, code: request(OpDeleteRange), flags: extensionBits, ext: Extensions{HasShard: true, Shard: 3},
		layout: "options:1 start_length:2 end_length:2", m: &DeleteRange{Flags: DeleteRangeAll}},
	{name: "delete_range_reply", about: "Done in shard 0, as its version 41; shard 1 has no leader now", id: 35, code: status(StatusOK), flags: FlagReply,
		layout: "count:4 status:1 body_length:4 version:8 presence:1 status:1 body_length:4",
		m:      &BatchReply{OpResults{{StatusOK, wire(&WriteReply{Version: 41})}, {StatusNotLeader, nil}}}},

	{name: "mget_request", about: "Three keys", id: 13, code: request(OpMGet),
		layout: "count:4 key_length:2 key:1s key_length:2 key:2s key_length:2 key:3s", m: &MGet{[][]byte{[]byte("a"), []byte("bb"), []byte("ccc")}}},
	{name: "mget_reply_more", about: "The first two rows; a further frame follows", id: 13, code: status(StatusOK), flags: FlagReply | FlagMore,
		layout: "status:1 version:8 ttl_ms:8 value_length:4 value:3s status:1", m: &MGetReply{[]MGetRow{{StatusOK, 3, 0, []byte("one")}, {Status: StatusNotFound}}}},
	{name: "mget_reply_last", about: "The third row, and the end", id: 13, code: status(StatusOK), flags: FlagReply,
		layout: "status:1 version:8 ttl_ms:8 value_length:4 value:5s", m: &MGetReply{[]MGetRow{{StatusOK, 4, 500, []byte("three")}}}},

	{name: "batch_request", about: "A PUT and a DELETE, each shard for itself", id: 14, code: request(OpBatch),
		layout: "options:1 count:4 opcode:1 body_length:4 put_options:1 put_key_length:2 put_key:1s put_value:1s opcode:1 body_length:4 delete_options:1 delete_key:1s",
		m: &Batch{BatchNonAtomic, Ops{{OpPut, wire(&Put{Key: []byte("a"), Value: []byte("1")})},
			{OpDelete, wire(&Delete{Key: []byte("b")})}}}},
	{name: "batch_reply", about: "The PUT is done, the key to delete did not exist", id: 14, code: status(StatusOK), flags: FlagReply,
		layout: "count:4 status:1 body_length:4 put_version:8 put_presence:1 status:1 body_length:4 delete_version:8 delete_presence:1",
		m:      &BatchReply{OpResults{{StatusOK, wire(&WriteReply{Version: 5})}, {StatusNotFound, wire(&WriteReply{})}}}},
	{name: "txn_request", about: "If {a}x has version 5 and {a}y is less than \"m\": INCR, else GET", id: 15, code: request(OpTxn),
		layout: "compare_count:4 target:1 relation:1 key_length:2 key:4s version:8 target:1 relation:1 key_length:2 key:4s value_length:4 value:1s " +
			"then_count:4 opcode:1 body_length:4 incr_delta:8i incr_key:4s else_count:4 opcode:1 body_length:4 get_key:4s",
		m: &Txn{
			Compares: []Compare{{CompareVersion, Equal, []byte("{a}x"), 5, nil}, {CompareValue, Less, []byte("{a}y"), 0, []byte("m")}},
			Then:     Ops{{OpIncr, wire(&Incr{1, []byte("{a}n")})}},
			Else:     Ops{{OpGet, wire(&Key{[]byte("{a}y")})}},
		}},
	{name: "txn_reply", about: "The first branch was taken", id: 15, code: status(StatusOK), flags: FlagReply,
		layout: "succeeded:1 count:4 status:1 body_length:4 incr_version:8 incr_value:8i", m: &TxnReply{true, OpResults{{StatusOK, wire(&IncrReply{6, 1})}}}},

	{name: "scan_request", about: "The first two keys that begin with \"user:\"", id: 16, code: request(OpScan),
		layout: "options:1 count_max:4 bytes_max:4 start_length:2 start:5s end_length:2 cursor_length:2",
		m:      &Scan{Flags: ScanPrefix, CountMax: 2, BytesMax: 1 << 20, Start: []byte("user:")}},
	{name: "scan_reply_more", about: "One row; a further frame follows", id: 16, code: status(StatusOK), flags: FlagReply | FlagMore,
		layout: "cursor_length:2 version:8 ttl_ms:8 key_length:2 value_length:4 key:6s value:3s",
		m:      &ScanReply{nil, []ScanRow{{3, 0, []byte("user:1"), []byte("ann")}}}},
	{name: "scan_reply_last", about: "The last frame, with the cursor for the next page", id: 16, code: status(StatusOK), flags: FlagReply,
		layout: "cursor_length:2 cursor:3 version:8 ttl_ms:8 key_length:2 value_length:4 key:6s value:3s",
		m:      &ScanReply{[]byte{0xc0, 0xff, 0xee}, []ScanRow{{4, 0, []byte("user:2"), []byte("bob")}}}},

	{name: "routes_request", about: "The body is empty", id: 17, code: request(OpRoutes)},
	{name: "routes_reply", about: "One node leads both of two shards", id: 17, code: status(StatusOK), flags: FlagReply,
		layout: "epoch:8 node_count:2 node:8 address_length:2 address:14s shard_count:2 shard:2 leader:8 range_count:2 first_slot:2 last_slot:2 shard:2 leader:8 range_count:2 first_slot:2 last_slot:2",
		m: &RoutesReply{1, []RouteNode{{1, []byte("127.0.0.1:7400")}}, []RouteShard{
			{0, 1, []SlotRange{{0, 8191}}}, {1, 1, []SlotRange{{8192, 16383}}}}}},
	{name: "status_request", about: "The body is empty", id: 18, code: request(OpStatus)},
	{name: "status_reply", about: "A JSON document", id: 18, code: status(StatusOK), flags: FlagReply, layout: "json:*s", raw: `{"node":{"node":1}}`},

	{name: "scan_request_shard", about: "All keys of shard 3, as far as a page goes", id: 21, code: request(OpScan), flags: extensionBits, ext: Extensions{HasShard: true, Shard: 3},
		layout: "options:1 count_max:4 bytes_max:4 start_length:2 end_length:2 cursor_length:2",
		m:      &Scan{CountMax: 100, BytesMax: 1 << 20}},
	{name: "put_reply_forwarded", about: "Stored by node 3, to which the node asked has forwarded the request; the slot map is at epoch 8", id: 22, code: status(StatusOK), flags: FlagReply | extensionBits,
		ext: Extensions{Epoch: 8, Leader: 3}, layout: "version:8 presence:1", m: &WriteReply{Version: 14}},
	{name: "error_not_leader", about: "Node 3 leads the shard, and the request was not forwarded", id: 22, code: status(StatusNotLeader), flags: FlagReply | extensionBits,
		ext: Extensions{Leader: 3}, layout: errorLayout, m: &ErrorReply{50, []byte("node 3 leads the shard")}},
	{name: "admin_request", about: "Make node 2 the leader of shard 5", id: 23, code: request(OpAdmin), layout: "verb_length:2 verb:14s args:*s",
		m: &Admin{[]byte("shard.transfer"), []byte(`{"shard":5,"to":2}`)}},
	{name: "admin_reply", about: "A JSON document", id: 23, code: status(StatusOK), flags: FlagReply, layout: "json:*s", raw: `{"message":"node 2 leads shard 5"}`},
	{name: "error_refused", about: "The cluster's state does not allow it", id: 23, code: status(StatusRefused), flags: FlagReply,
		layout: errorLayout, m: &ErrorReply{0, []byte("refused: node 2 is down")}},

	{name: "error_busy", about: "A queue is full: try again after 5 ms", id: 19, code: status(StatusBusy), flags: FlagReply,
		layout: errorLayout, m: &ErrorReply{5, []byte("the shard's queue is full")}},
	{name: "error_bad_request", about: "The message was malformed; the connection lives", id: 20, code: status(StatusBadRequest), flags: FlagReply,
		layout: errorLayout, m: &ErrorReply{0, []byte("message is truncated")}},
	{name: "error_too_large", about: "The end of a SCAN was too long", id: 20, code: status(StatusTooLarge), flags: FlagReply,
		layout: errorLayout, m: &ErrorReply{0, []byte("a size limit is exceeded: the end of the scan has 8194 bytes, at most 8193 are allowed")}},
	{name: "error_protocol", about: "The stream is out of step and the header could not be read; the connection closes", id: 0, code: status(StatusProtocol), flags: FlagReply,
		layout: errorLayout, m: &ErrorReply{0, []byte("frame length is smaller than the header")}},
	{name: "notice_goaway", about: "The server asks to connect elsewhere", id: 0, code: status(StatusGoAway), flags: FlagReply,
		layout: errorLayout, m: &ErrorReply{0, []byte("the server is shutting down")}},
	{name: "notice_idle", about: "The server closes an idle connection", id: 0, code: status(StatusIdle), flags: FlagReply,
		layout: errorLayout, m: &ErrorReply{0, []byte("no request for 10m0s")}},
}

func (v *vector) encode() []byte {
	b := Begin(nil, v.code, v.flags, v.id)
	if v.flags&FlagExtensions != 0 {
		b = v.ext.AppendTo(b)
	}
	if v.m != nil {
		b = v.m.AppendTo(b)
	}
	return End(append(b, v.raw...), 0)
}

// extensionLayouts are the layouts of the extensions' payloads by type.
var extensionLayouts = map[uint8]string{
	extDeadline: "deadline_ms:4", extSession: "session:8 sequence:8 acknowledged:8", extConsistency: "consistency:1 token:8",
	extTrace: "trace_id:16 span_id:8 trace_flags:1", extEpoch: "epoch:8", extLeader: "leader:8", extAge: "age_ms:4", extShard: "shard:2",
}

// describe renders the vector as its golden file: hexadecimal bytes, and after
// each group a comment with the field's name and value.
func (v *vector) describe(frame []byte) (string, error) {
	var out strings.Builder
	title := Opcode(v.code).String() + " request"
	if v.flags&FlagReply != 0 {
		title = "reply, status " + Status(v.code).String()
	}
	if v.id == 0 {
		title = "notice, status " + Status(v.code).String()
	}
	fmt.Fprintf(&out, "# %s. %s.\n", title, v.about)
	layout := "length:4 protocol_version:1 code:1 flags:2 request_id:8"
	if v.flags&FlagExtensions != 0 {
		layout += " extensions_length:2"
		x := frame[HeaderBytes+2:][:binary.LittleEndian.Uint16(frame[HeaderBytes:])]
		for len(x) > 0 {
			layout += " extension_type:1 extension_length:1 " + extensionLayouts[x[0]&^extCritical]
			x = x[2+x[1]:]
		}
	}
	for _, field := range strings.Fields(layout + " " + v.layout) {
		name, width, _ := strings.Cut(field, ":")
		form := strings.TrimLeft(width, "0123456789*")
		width = strings.TrimSuffix(width, form)
		n := len(frame)
		if width != "*" {
			n, _ = strconv.Atoi(width)
		}
		if n > len(frame) {
			return "", fmt.Errorf("%s: field %s of %d bytes does not fit", v.name, name, n)
		}
		line := hex.EncodeToString(frame[:n])
		for i := len(line) - 2; i > 0; i -= 2 {
			line = line[:i] + " " + line[i:]
		}
		fmt.Fprintf(&out, "%s # %s = %s\n", line, name, fieldValue(frame[:n], form))
		frame = frame[n:]
	}
	if len(frame) != 0 {
		return "", fmt.Errorf("%s: %d bytes that the layout does not name", v.name, len(frame))
	}
	return out.String(), nil
}

func fieldValue(p []byte, form string) string {
	if form == "s" {
		return strconv.Quote(string(p))
	}
	var wide [8]byte
	if len(p) > len(wide) || len(p) == 3 {
		return "0x" + hex.EncodeToString(p)
	}
	copy(wide[:], p)
	n := binary.LittleEndian.Uint64(wide[:])
	if form == "i" {
		return strconv.FormatInt(int64(n), 10)
	}
	return strconv.FormatUint(n, 10)
}

// parseGolden returns the bytes of a golden file. A comment runs from # to the
// end of the line.
func parseGolden(text string) ([]byte, error) {
	var digits strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	return hex.DecodeString(digits.String())
}

func goldenPath(name string) string { return filepath.Join("testdata", "golden", name+".txt") }

func TestGolden(t *testing.T) {
	for i := range vectors {
		v := &vectors[i]
		t.Run(v.name, func(t *testing.T) {
			encoded := v.encode()
			text, err := v.describe(encoded)
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(goldenPath(v.name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			stored, err := os.ReadFile(goldenPath(v.name))
			if err != nil {
				t.Fatalf("%v (run go test with -update)", err)
			}
			want, err := parseGolden(string(stored))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(encoded, want) {
				t.Fatalf("encoded as\n%x, the vector is\n%x", encoded, want)
			}
			if text != string(stored) {
				t.Errorf("the comments are out of date:\n%s", text)
			}
			v.checkDecoded(t, want)
		})
	}
}

func (v *vector) checkDecoded(t *testing.T, frame []byte) {
	f, n, _, err := Next(frame, FrameBytesMax)
	if err != nil || n != len(frame) {
		t.Fatalf("takes %d of %d bytes, %v", n, len(frame), err)
	}
	if want := (Header{uint32(len(frame)), Version, v.code, v.flags, v.id}); f.Header != want {
		t.Errorf("header is %+v, want %+v", f.Header, want)
	}
	var x Extensions
	if err := x.Decode(f.Extensions); err != nil || x != v.ext {
		t.Errorf("extensions are %+v, %v", x, err)
	}
	if v.m == nil {
		if string(f.Body) != v.raw {
			t.Errorf("body is %q", f.Body)
		}
		return
	}
	got := newLike(v.m)
	if err := got.Decode(f.Body); err != nil {
		t.Fatal(err)
	}
	if d := diff(v.m, got); d != "" {
		t.Error(d)
	}
}

// TestGoldenCoversEverything finds an opcode without a request among the
// vectors, a codec without a message, and a file without a vector.
func TestGoldenCoversEverything(t *testing.T) {
	requests, codecs, files := map[Opcode]bool{}, map[string]bool{}, map[string]bool{}
	for _, v := range vectors {
		if v.flags&FlagReply == 0 {
			requests[Opcode(v.code)] = true
		}
		codecs[fmt.Sprintf("%T", v.m)] = true
		files[v.name+".txt"] = true
	}
	for o := Opcode(1); o < opcodeEnd; o++ {
		if !requests[o] {
			t.Errorf("no vector of a %v request", o)
		}
	}
	for _, k := range kinds {
		if !codecs[fmt.Sprintf("%T", k.new())] {
			t.Errorf("no vector of a %s", k.name)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(goldenPath("")))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !files[e.Name()] {
			t.Errorf("%s belongs to no vector", e.Name())
		}
	}
}
