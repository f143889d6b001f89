//go:build !race

package blocktest

const slower = 1
