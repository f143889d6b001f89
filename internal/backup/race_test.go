//go:build race

package backup

// underRace is how much longer than without the race detector things may take: to make keys of
// passwords and to cut files into pieces is nothing but memory.
const underRace = 20
