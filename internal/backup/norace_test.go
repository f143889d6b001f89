//go:build !race

package backup

const underRace = 1
