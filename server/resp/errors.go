package resp

import (
	"strconv"
	"strings"
)

// Texts of errors, each with its code in front, as AppendError takes them. The
// words are those of Redis 7.0, since clients compare them.
const (
	ErrSyntax            = "ERR syntax error"
	ErrNotInteger        = "ERR value is not an integer or out of range"
	ErrNotFloat          = "ERR value is not a valid float"
	ErrOverflow          = "ERR increment or decrement would overflow"
	ErrDecrementOverflow = "ERR decrement would overflow"
	ErrNotFinite         = "ERR increment would produce NaN or Infinity"
	ErrNoSuchKey         = "ERR no such key"
	ErrSameObject        = "ERR source and destination objects are the same"
	ErrStringTooLong     = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
	ErrOffset            = "ERR offset is out of range"
	ErrInvalidCursor     = "ERR invalid cursor"
	ErrNoFrequency       = "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust."
	ErrDBIndex           = "ERR DB index is out of range"
	ErrTimeoutNotInteger = "ERR timeout is not an integer or out of range"
	ErrTimeoutNegative   = "ERR timeout is negative"
	ErrExpireNX          = "ERR NX and XX, GT or LT options at the same time are not compatible"
	ErrExpireGTLT        = "ERR GT and LT options at the same time are not compatible"

	ErrNestedMulti         = "ERR MULTI calls can not be nested"
	ErrExecWithoutMulti    = "ERR EXEC without MULTI"
	ErrDiscardWithoutMulti = "ERR DISCARD without MULTI"
	ErrWatchInsideMulti    = "ERR WATCH inside MULTI is not allowed"
	ErrExecAbort           = "EXECABORT Transaction discarded because of previous errors."

	ErrNoPermissionKey = "NOPERM this user has no permissions to access one of the keys used as arguments"
	ErrNoAuth          = "NOAUTH Authentication required."
	ErrNoAuthHello     = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time"
	ErrWrongPass       = "WRONGPASS invalid username-password pair or user is disabled."
	ErrNoPassword      = "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?"
	ErrNoProto         = "NOPROTO unsupported protocol version"
	ErrProtoNumber     = "ERR Protocol version is not an integer or out of range"
	ErrClientName      = "ERR Client names cannot contain spaces, newlines or special characters."
	ErrNoSuchClient    = "ERR No such client"
	ErrClientID        = "ERR Invalid client ID"
	ErrKillID          = "ERR client-id should be greater than 0"
	ErrMaxClients      = "ERR max number of clients reached"

	ErrCrossSlot       = "CROSSSLOT Keys in request don't hash to the same slot"
	ErrInvalidSlot     = "ERR Invalid slot"
	ErrClusterDisabled = "ERR This instance has cluster support disabled"

	ErrCommandNotFound  = "ERR Invalid command specified"
	ErrCommandNoKeys    = "ERR The command has no key arguments"
	ErrCommandArguments = "ERR Invalid number of arguments specified for command"
)

// NoPermission is the error of a command that its user may not run.
func NoPermission(name string) string {
	return "NOPERM this user has no permissions to run the '" + name + "' command"
}

// textBytesMax bounds what an error repeats of a request, in bytes.
const textBytesMax = 128

// UnknownCommand returns the error for a request whose command does not exist,
// with as much of the arguments as Redis repeats.
func UnknownCommand(args [][]byte) string {
	var b strings.Builder
	for _, a := range args[1:] {
		if b.Len() >= textBytesMax {
			break
		}
		b.WriteByte('\'')
		b.WriteString(head(a, textBytesMax-(b.Len()-1)))
		b.WriteString("' ")
	}
	return oneLine("ERR unknown command '" + head(args[0], textBytesMax) + "', with args beginning with: " + b.String())
}

// UnknownSubcommand returns the error for a request whose subcommand does not
// exist. args has at least two elements.
func UnknownSubcommand(args [][]byte) string {
	return oneLine("ERR unknown subcommand '" + head(args[1], textBytesMax) + "'. Try " +
		strings.ToUpper(string(args[0])) + " HELP.")
}

// WrongArity returns the error for a wrong number of arguments. name is that of
// the Command.
func WrongArity(name string) string {
	return "ERR wrong number of arguments for '" + name + "' command"
}

// InvalidExpire returns the error for an expiry that is not positive, or too
// far away. name is that of the Command.
func InvalidExpire(name string) string {
	return "ERR invalid expire time in '" + name + "' command"
}

// UnsupportedOption returns the error for an option of EXPIRE and its kin that
// does not exist.
func UnsupportedOption(option []byte) string {
	return oneLine("ERR Unsupported option " + string(option))
}

// HelloOption returns the error for an option of HELLO that does not exist.
func HelloOption(option []byte) string {
	return oneLine("ERR Syntax error in HELLO option '" + string(option) + "'")
}

// UnknownClientType returns the error for a TYPE of client that does not exist.
func UnknownClientType(name []byte) string {
	return oneLine("ERR Unknown client type '" + string(name) + "'")
}

// UnknownConfig returns the error for a setting that CONFIG SET does not know,
// or has no value for.
func UnknownConfig(name []byte) string {
	return oneLine("ERR Unknown option or number of arguments for CONFIG SET - '" + head(name, len(name)) + "'")
}

// ConfigFailed returns the error for a setting that cannot be given a value.
func ConfigFailed(name, why string) string {
	return oneLine("ERR CONFIG SET failed (possibly related to argument '" + name + "') - " + why)
}

// Moved returns the redirection to the node that leads a slot.
func Moved(slot uint16, address string) string {
	return "MOVED " + strconv.Itoa(int(slot)) + " " + address
}

// oneLine replaces CR and LF by spaces.
func oneLine(s string) string {
	return strings.NewReplacer("\r", " ", "\n", " ").Replace(s)
}

// head is the text at the front of b, of n bytes at most. Like Redis it ends at
// a NUL.
func head(b []byte, n int) string {
	for i, c := range b[:min(len(b), n)] {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b[:min(len(b), n)])
}
