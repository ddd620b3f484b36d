package resp

import "strconv"

// Text is what the Append functions take as text.
type Text interface{ ~string | ~[]byte }

// Versions of the protocol, the proto of the Append functions: a client speaks
// RESP2 until it asks for RESP3 with HELLO 3.
const (
	RESP2 = 2
	RESP3 = 3
)

// AppendSimple appends a simple string, like "+OK". CR and LF in it become
// spaces.
func AppendSimple[T Text](dst []byte, s T) []byte {
	return appendLine(dst, '+', s)
}

// AppendError appends an error. Its text begins with the code: "ERR syntax
// error". CR and LF in it become spaces, so that text from a client cannot
// forge a second reply.
func AppendError[T Text](dst []byte, text T) []byte {
	return appendLine(dst, '-', text)
}

// AppendInt appends an integer.
func AppendInt(dst []byte, n int64) []byte {
	return appendHeader(dst, ':', n)
}

// AppendBulk appends a bulk string: any bytes.
func AppendBulk[T Text](dst []byte, s T) []byte {
	dst = AppendBulkHeader(dst, len(s))
	dst = append(dst, s...)
	return append(dst, '\r', '\n')
}

// AppendBulkHeader appends what stands before a bulk string of n bytes. The
// caller appends those, and CR and LF.
func AppendBulkHeader(dst []byte, n int) []byte {
	return appendHeader(dst, '$', int64(n))
}

// AppendArray appends the header of an array; n elements follow.
func AppendArray(dst []byte, n int) []byte {
	return appendHeader(dst, '*', int64(n))
}

// AppendMap appends the header of a map; n keys follow, each before its value.
// In RESP2 it is an array of both.
func AppendMap(dst []byte, proto, n int) []byte {
	if proto < RESP3 {
		return AppendArray(dst, 2*n)
	}
	return appendHeader(dst, '%', int64(n))
}

// AppendSet appends the header of a set; n elements follow. In RESP2 it is an
// array.
func AppendSet(dst []byte, proto, n int) []byte {
	if proto < RESP3 {
		return AppendArray(dst, n)
	}
	return appendHeader(dst, '~', int64(n))
}

// AppendNull appends the null that stands in the place of a string.
func AppendNull(dst []byte, proto int) []byte {
	if proto < RESP3 {
		return append(dst, "$-1\r\n"...)
	}
	return append(dst, "_\r\n"...)
}

// AppendNullArray appends the null that stands in the place of an array, which
// only RESP2 tells from the other.
func AppendNullArray(dst []byte, proto int) []byte {
	if proto < RESP3 {
		return append(dst, "*-1\r\n"...)
	}
	return append(dst, "_\r\n"...)
}

// AppendVerbatim appends text for people to read, in a format named by exactly
// three bytes ("txt", "mkd"). In RESP2 it is a bulk string without the format.
func AppendVerbatim[T Text](dst []byte, proto int, format string, text T) []byte {
	if proto < RESP3 {
		return AppendBulk(dst, text)
	}
	dst = appendHeader(dst, '=', int64(len(format)+1+len(text)))
	dst = append(dst, format...)
	dst = append(dst, ':')
	dst = append(dst, text...)
	return append(dst, '\r', '\n')
}

// appendHeader appends a line of a type byte and a number.
func appendHeader(dst []byte, kind byte, n int64) []byte {
	if n >= 0 && n <= 9 {
		return append(dst, kind, byte('0'+n), '\r', '\n')
	}
	dst = append(dst, kind)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, '\r', '\n')
}

// appendLine appends a line of a type byte and text.
func appendLine[T Text](dst []byte, kind byte, text T) []byte {
	dst = append(dst, kind)
	start := len(dst)
	dst = append(dst, text...)
	for i, c := range dst[start:] {
		if c == '\r' || c == '\n' {
			dst[start+i] = ' '
		}
	}
	return append(dst, '\r', '\n')
}
