package client_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestReadSpec(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "my.json")
	if err := os.WriteFile(file, []byte(`{"Name":"other","Addr":"https://host:1","TLSConfig":{"CertFile":"c"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	ep, err := client.ReadSpec(file)
	if err != nil || ep.Name != "my" || ep.Addr != "https://host:1" || ep.TLS.CertFile != "c" || !ep.TLS.InsecureSkipVerify || ep.Source != file {
		t.Errorf("%+v, %v", ep, err)
	}
	if err := os.WriteFile(file, []byte(`{"Addr":"host"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := client.ReadSpec(file); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a wrong one: %v", err)
	}
}
