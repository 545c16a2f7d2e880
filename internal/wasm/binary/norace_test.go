//go:build !race

package binary

const raced = false
