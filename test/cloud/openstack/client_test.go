package openstack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/attachments"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"
	"github.com/gophercloud/gophercloud/v2/openstack/config"
	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// microversion is the highest that the tests use: an attachment with a mode.
const microversion = "3.54"

// connect logs in as clouds.yaml says.
func connect(ctx context.Context, yaml string) (*gophercloud.ProviderClient, gophercloud.EndpointOpts, error) {
	auth, endpoint, tls, err := clouds.Parse(clouds.WithCloudName("test"), clouds.WithCloudsYAML(strings.NewReader(yaml)), clouds.WithLocations())
	if err != nil {
		return nil, endpoint, err
	}
	p, err := config.NewProviderClient(ctx, auth, config.WithTLSConfig(tls))
	return p, endpoint, err
}

// blockStorage is Cinder, for [User].
func blockStorage(t *testing.T, c *Cloud, region string) *gophercloud.ServiceClient {
	t.Helper()
	p, endpoint, err := connect(t.Context(), c.CloudsYAML(region))
	if err != nil {
		t.Fatal(err)
	}
	client, err := openstack.NewBlockStorageV3(p, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	client.Microversion = microversion
	return client
}

// status is that of an answer which was a refusal.
func status(err error) int {
	if e, ok := errors.AsType[gophercloud.ErrUnexpectedResponseCode](err); ok {
		return e.Actual
	}
	return 0
}

// wantStatus fails the test where a call was not refused as it should.
func wantStatus(t *testing.T, what string, err error, code int, text string) {
	t.Helper()
	if status(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v, want %d %q", what, err, code, text)
	}
}

// create makes a volume that is deleted after the test.
func create(t *testing.T, client *gophercloud.ServiceClient, opts volumes.CreateOpts) *volumes.Volume {
	t.Helper()
	if opts.Name == "" {
		opts.Name = strings.ReplaceAll(t.Name(), "/", "-")
	}
	if opts.Size == 0 {
		opts.Size = 1
	}
	v, err := volumes.Create(t.Context(), client, opts, nil).Extract()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, client, v.ID) })
	return await(t, client, v.ID, "available")
}

// await waits until a volume has a state.
func await(t *testing.T, client *gophercloud.ServiceClient, id, state string) *volumes.Volume {
	t.Helper()
	var v *volumes.Volume
	waitFor(t, func() error {
		var err error
		if v, err = volumes.Get(t.Context(), client, id).Extract(); err != nil {
			return err
		}
		if v.Status == "error" && state != "error" {
			t.Fatalf("the volume is in error: %+v", v)
		}
		if v.Status != state {
			return fmt.Errorf("volume %s is %s, not %s", id, v.Status, state)
		}
		return nil
	})
	return v
}

func waitFor(t *testing.T, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// remove deletes a volume with its snapshots and attachments, and waits until it is gone.
func remove(t *testing.T, client *gophercloud.ServiceClient, id string) {
	ctx := context.WithoutCancel(t.Context())
	// A volume says nothing of an attachment that is only reserved.
	if pages, err := attachments.List(client, attachments.ListOpts{VolumeID: id}).AllPages(ctx); err == nil {
		found, _ := attachments.ExtractAttachments(pages)
		for _, a := range found {
			_ = attachments.Delete(ctx, client, a.ID).ExtractErr()
		}
	}
	waitFor(t, func() error {
		err := volumes.Delete(ctx, client, id, volumes.DeleteOpts{Cascade: true}).ExtractErr()
		if status(err) == http.StatusNotFound {
			return nil
		}
		return fmt.Errorf("volume %s is still there: %w", id, err)
	})
}
