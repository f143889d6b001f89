package testenv

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// Soak tells whether what is done to a running thing many times is done as often as "make soak" does
// it, which sets REMORA_SOAK.
func Soak() bool { return os.Getenv("REMORA_SOAK") != "" }

// Rounds is how often something is killed or damaged: few times for every day, 2 with -short, 100 in a
// soak.
func Rounds(few int) int {
	switch {
	case Soak():
		return 100
	case testing.Short():
		return 2
	}
	return few
}

// Seed returns where the chance of a test begins, and writes it to the log. REMORA_SOAK_SEED repeats one.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // a seed
	if given := os.Getenv("REMORA_SOAK_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("REMORA_SOAK_SEED: %v", err)
		}
	}
	t.Logf("seed %d: repeat with REMORA_SOAK_SEED=%d", seed, seed)
	return seed
}
