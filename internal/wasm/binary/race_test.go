//go:build race

package binary

// raced: guests run some ten times slower, and none of them has threads, so
// fewer are run.
const raced = true
