package cinder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func provide(t *testing.T) *provider {
	t.Helper()
	p, err := newProvider(t.Context(), good(), catalog.Env{}.Log())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestExplain(t *testing.T) {
	p := provide(t)
	for name, tt := range map[string]struct {
		status int
		body   string
		after  string
		class  error
		words  []string
	}{
		"bad":          {400, `{"badRequest": {"code": 400, "message": "Invalid input\nreceived"}}`, "", errdefs.ErrInvalid, []string{"Invalid input", "project data"}},
		"unauthorised": {401, `{"error": {"message": "The request you have made requires authentication."}}`, "", errdefs.ErrDenied, []string{"password"}},
		"forbidden":    {403, `{"forbidden": {"message": "Policy doesn't allow volume:create to be performed."}}`, "", errdefs.ErrDenied, []string{"role"}},
		"quota 403":    {403, `{"forbidden": {"message": "Quota exceeded for volumes"}}`, "", errdefs.ErrInvalid, []string{"larger quota"}},
		"quota 413":    {413, `{"overLimit": {"message": "VolumeLimitExceeded: Maximum number of volumes allowed (1) exceeded", "retryAfter": "0"}}`, "0", errdefs.ErrInvalid, []string{"larger quota"}},
		"gone":         {404, `{"itemNotFound": {"message": "Volume x could not be found."}}`, "", errdefs.ErrNotFound, []string{"could not be found"}},
		"conflict":     {409, `{"conflictingRequest": {"message": "Cannot 'attach_volume'"}}`, "", errdefs.ErrInUse, nil},
		"too old":      {406, `{"computeFault": {"message": "Version 3.42 is not supported"}}`, "", errdefs.ErrUnsupported, []string{"Pike"}},
		"fault":        {500, `<html>oops</html>`, "", errdefs.ErrUnavailable, []string{"answer 500"}},
		"away":         {503, ``, "", errdefs.ErrUnavailable, []string{"answer 503"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.Header{}
			h.Set("Retry-After", tt.after)
			err := p.explain(t.Context(), "CreateVolume", gophercloud.ErrUnexpectedResponseCode{Actual: tt.status, Body: []byte(tt.body), ResponseHeader: h})
			wantErr(t, err, tt.class, append(tt.words, "CreateVolume")...)
			if statusOf(err) != tt.status {
				t.Errorf("status %d", statusOf(err))
			}
		})
	}
}

// What is too much is asked again when the cloud says, and holds up all others.
func TestThrottled(t *testing.T) {
	p := provide(t)
	for _, tt := range []struct {
		status int
		body   string
	}{{413, `{"overLimit": {"message": "This request was rate-limited."}}`}, {429, ``}, {503, ``}} {
		tries := 0
		began := time.Now()
		err := p.client.Do(t.Context(), "x", func(ctx context.Context) error {
			if tries++; tries > 1 {
				return nil
			}
			h := http.Header{"Retry-After": {"1"}}
			return p.explain(ctx, "x", gophercloud.ErrUnexpectedResponseCode{Actual: tt.status, Body: []byte(tt.body), ResponseHeader: h})
		})
		if took := time.Since(began); err != nil || tries != 2 || took < 900*time.Millisecond {
			t.Errorf("%d: %d tries in %s, %v", tt.status, tries, took, err)
		}
	}
}

// A status that passes by itself is tried again; one that does not is told.
func TestBusy(t *testing.T) {
	p := provide(t)
	refused := func(text string) error {
		return p.explain(t.Context(), "ExtendVolume", gophercloud.ErrUnexpectedResponseCode{Actual: 400, Body: []byte(`{"badRequest": {"message": "` + text + `"}}`)})
	}
	err := refused("Invalid volume: Volume x status must be '{'status': 'available'}' to extend, currently detaching.")
	wantErr(t, busy(err), errdefs.ErrUnavailable, "currently detaching")
	err = refused("Invalid input: New size for extend must be greater than current size.")
	wantErr(t, busy(err), errdefs.ErrInvalid)
	if errors.Is(busy(err), errdefs.ErrUnavailable) {
		t.Error("a wrong size is tried again")
	}
}

func TestNoServer(t *testing.T) {
	c := good()
	c.AuthURL = "http://127.0.0.1:1/v3"
	p, err := newProvider(t.Context(), c, catalog.Env{}.Log())
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.List(t.Context(), block.Query{Namespace: "x"})
	wantErr(t, err, errdefs.ErrUnavailable, "connection refused", "project data")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, err = p.List(ctx, block.Query{}); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("error after the end of the context: %v", err)
	}
}

func TestMatch(t *testing.T) {
	const id = "573e024d-5235-49ce-8332-be1576d323f8"
	p := &provider{}
	d := block.Disk{ID: id}
	for _, tt := range []struct {
		name string
		v    block.Device
		want bool
	}{
		{"virtio", block.Device{Name: "vdc", Serial: id[:20]}, true},
		{"scsi", block.Device{Name: "sdb", Serial: id}, true},
		{"link of virtio", block.Device{Links: []string{"virtio-" + id[:20]}}, true},
		{"link of scsi", block.Device{Links: []string{"wwn-1", "scsi-0QEMU_QEMU_HARDDISK_" + id}}, true},
		{"link of an old scsi", block.Device{Links: []string{"scsi-0QEMU_QEMU_HARDDISK_" + id[:20]}}, true},
		{"another", block.Device{Serial: "673e024d-5235-49ce-8"}, false},
		{"a part", block.Device{Serial: id[:10]}, false},
		{"none", block.Device{Name: "vdb"}, false},
		{"the link of another that was there before", block.Device{Serial: "x", Links: []string{"virtio-" + id[:20]}}, false},
	} {
		if got := p.Match(d, tt.v); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	if p.Match(block.Disk{ID: ""}, block.Device{Serial: ""}) {
		t.Error("nothing is nothing")
	}
}

func TestSelf(t *testing.T) {
	const id = "0a1b2c3d-5235-49ce-8332-be1576d323f8"
	sys := t.TempDir()
	dmi := filepath.Join(sys, "class/dmi/id")
	if err := os.MkdirAll(dmi, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dmi, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reply := `{"uuid": "` + id + `", "availability_zone": "z9"}`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, reply) }))
	defer s.Close()
	fresh := func() *provider {
		p := provide(t)
		p.c.Sys, p.metadata = sys, s.URL
		return p
	}
	p := fresh()
	if h, err := p.Self(t.Context()); err != nil || h.ID != id || h.Zone != "z9" {
		t.Errorf("by metadata: %+v, %v", h, err)
	}
	reply = "<html>a captive portal</html>"
	if h, err := p.Self(t.Context()); err != nil || h.ID != id {
		t.Errorf("once more: %+v, %v", h, err)
	}
	write("product_uuid", strings.ToUpper(id))
	write("product_name", "KVM")
	_, err := fresh().Self(t.Context())
	wantErr(t, err, errdefs.ErrUnavailable, "not OpenStack's", "server =")
	write("product_name", "OpenStack Compute")
	if h, err := fresh().Self(t.Context()); err != nil || h.ID != id {
		t.Errorf("by firmware: %+v, %v", h, err)
	}
	p = fresh()
	p.c.Server = "FFFF2c3d-5235-49ce-8332-be1576d323f8"
	if h, err := p.Self(t.Context()); err != nil || h.ID != strings.ToLower(p.c.Server) {
		t.Errorf("by the pool: %+v, %v", h, err)
	}
}
