package gone

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(3) }

func TestNever(t *testing.T) {}
