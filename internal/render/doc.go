// Package render shows the results of commands: as tables and text for people, as
// JSON for programs, or as raw bytes, always in printable text where the bytes came
// from somebody else.
package render
