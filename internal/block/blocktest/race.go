//go:build race

package blocktest

// slower is by how much the race detector makes everything slower.
const slower = 10
