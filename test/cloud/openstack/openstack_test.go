package openstack

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestSmoke(t *testing.T) {
	c := Shared(t)
	t.Log(c.AuthURL)
}
