package cinder

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// metadataURL tells a server about itself. It is the same in every cloud.
const metadataURL = "http://169.254.169.254/openstack/latest/meta_data.json"

// metadataLimit bounds a look at it: it is near, or it is not there at all.
const metadataLimit = 3 * time.Second

var serverForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// Self returns which server this is, as the pool, the metadata service or the firmware says.
func (p *provider) Self(ctx context.Context) (block.Host, error) {
	p.mu.Lock()
	known := p.self
	p.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	h, err := p.whoami(ctx)
	if err != nil {
		return h, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.self = &h
	return h, nil
}

func (p *provider) whoami(ctx context.Context) (block.Host, error) {
	if p.c.Server != "" {
		return block.Host{ID: strings.ToLower(p.c.Server)}, nil
	}
	h, err := p.askMetadata(ctx)
	if err == nil || ctx.Err() != nil {
		return h, err
	}
	if id := p.firmware(); id != "" {
		return block.Host{ID: id}, nil
	}
	err = errdefs.Errorf(errdefs.ErrUnavailable, "which server of Nova this host is cannot be found out: the metadata service: %w; and the firmware is not OpenStack's", err)
	return h, errdefs.Hint(err, `write server = "ID" into the pool, as openstack server list shows it; a host that is no server of Nova cannot have disks attached`)
}

func (p *provider) askMetadata(ctx context.Context) (h block.Host, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, metadataLimit, errors.New("no answer"))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.metadata, nil)
	if err != nil {
		return h, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // never by a proxy
	resp, err := client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return h, context.Cause(ctx)
		}
		return h, errors.New("it cannot be reached")
	}
	defer resp.Body.Close()
	var got struct {
		UUID string `json:"uuid"`
		Zone string `json:"availability_zone"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&got); err != nil || resp.StatusCode != http.StatusOK || !serverForm.MatchString(got.UUID) {
		return h, errors.New("its answer is not OpenStack's")
	}
	return block.Host{ID: got.UUID, Zone: got.Zone}, nil
}

// firmware returns the ID that Nova gives the firmware of a server, if it is one.
func (p *provider) firmware() string {
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(p.c.Sys, "class/dmi/id", name))
		if err != nil {
			return ""
		}
		return strings.ToLower(strings.TrimSpace(string(b)))
	}
	if !strings.Contains(read("product_name")+read("sys_vendor")+read("chassis_asset_tag"), "openstack") {
		return ""
	}
	if id := read("product_uuid"); serverForm.MatchString(id) {
		return id
	}
	return ""
}
