package ec2_test

import (
	"os"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }
