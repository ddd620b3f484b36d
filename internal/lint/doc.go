// Package lint holds tests about the source itself: who may import whom, what
// tests may not do, and that exported names are documented. It has no code of
// its own.
package lint
