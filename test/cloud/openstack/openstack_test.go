package openstack

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/attachments"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/snapshots"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/applicationcredentials"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
	"github.com/gophercloud/gophercloud/v2/pagination"

	"github.com/remora-plugins/remora/test/cloud/ceph"
)

func TestTLS(t *testing.T) {
	c := Shared(t)
	client := blockStorage(t, c, RegionTLS)
	if !strings.HasPrefix(client.Endpoint, "https://") {
		t.Errorf("the endpoint is %s", client.Endpoint)
	}
	if _, err := volumes.List(client, volumes.ListOpts{}).AllPages(t.Context()); err != nil {
		t.Error(err)
	}
	yaml := strings.ReplaceAll(c.CloudsYAML(RegionTLS), "cacert: "+c.CA, "")
	if _, _, err := connect(t.Context(), yaml); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("without the authority: %v", err)
	}
}

// What a cloud that is busy answers reaches the client, with how long it is to wait.
func TestIntercept(t *testing.T) {
	c := Shared(t)
	client := blockStorage(t, c, RegionTLS)
	var calls atomic.Int32
	c.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if calls.Add(1) == 1 {
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	t.Cleanup(func() { c.Intercept(nil) })
	_, err := volumes.List(client, volumes.ListOpts{}).AllPages(t.Context())
	wantStatus(t, "busy", err, http.StatusTooManyRequests, "")
	if _, err := volumes.List(client, volumes.ListOpts{}).AllPages(t.Context()); err != nil {
		t.Error(err)
	}
	if n := calls.Load(); n != 2 {
		t.Errorf("%d calls", n)
	}
}

func TestLogin(t *testing.T) {
	c := Shared(t)
	_, _, err := connect(t.Context(), strings.ReplaceAll(c.CloudsYAML(Region), strconv.Quote(c.Password), "wrong"))
	wantStatus(t, "wrong password", err, http.StatusUnauthorized, "requires authentication")

	p, endpoint, err := connect(t.Context(), c.CloudsYAML(Region))
	if err != nil {
		t.Fatal(err)
	}
	keystone, err := openstack.NewIdentityV3(p, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	user, err := tokens.Get(t.Context(), keystone, p.Token()).ExtractUser()
	if err != nil {
		t.Fatal(err)
	}
	cred, err := applicationcredentials.Create(t.Context(), keystone, user.ID, applicationcredentials.CreateOpts{Name: "remora"}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	auth := gophercloud.AuthOptions{IdentityEndpoint: c.AuthURL, ApplicationCredentialID: cred.ID, ApplicationCredentialSecret: cred.Secret, AllowReauth: true}
	p, err = openstack.AuthenticatedClient(t.Context(), auth)
	if err != nil {
		t.Fatal(err)
	}
	client, err := openstack.NewBlockStorageV3(p, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	// A token that has expired is answered 401, and the client gets another by itself.
	if err := tokens.Revoke(t.Context(), keystone, p.Token()).Err; err != nil {
		t.Fatal(err)
	}
	if _, err := volumes.List(client, volumes.ListOpts{}).AllPages(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestVolume(t *testing.T) {
	c := Shared(t)
	client := blockStorage(t, c, Region)
	for _, kind := range []string{"files", "ceph"} {
		t.Run(kind, func(t *testing.T) {
			tags := map[string]string{"remora:id": "1", "remora:name": "a \"b\" ü", "remora:options": strings.Repeat("x", 255), "empty": ""}
			v := create(t, client, volumes.CreateOpts{VolumeType: kind, Metadata: tags})
			if diff := cmp.Diff(tags, v.Metadata); diff != "" {
				t.Error(diff)
			}
			if v.AvailabilityZone != Zone || v.VolumeType != kind || v.Size != 1 || v.Bootable != "false" {
				t.Errorf("got %+v", v)
			}
			if kind == "files" {
				if fi, err := os.Stat(c.File(v.ID)); err != nil || fi.Size() != 1<<30 {
					t.Errorf("%v, %v", fi, err)
				}
			} else {
				ceph.Shared(t).Must(t, "rbd", "info", "volume-"+v.ID)
			}
			// An update puts its keys in the place of all that were there.
			if _, err := volumes.Update(t.Context(), client, v.ID, volumes.UpdateOpts{Metadata: map[string]string{"more": "1"}}).Extract(); err != nil {
				t.Error(err)
			}
			got := await(t, client, v.ID, "available").Metadata
			if diff := cmp.Diff(map[string]string{"more": "1"}, got); diff != "" {
				t.Error(diff)
			}

			if err := volumes.ExtendSize(t.Context(), client, v.ID, volumes.ExtendSizeOpts{NewSize: 2}).ExtractErr(); err != nil {
				t.Fatal(err)
			}
			if v := await(t, client, v.ID, "available"); v.Size != 2 {
				t.Errorf("extended to %d", v.Size)
			}
			err := volumes.ExtendSize(t.Context(), client, v.ID, volumes.ExtendSizeOpts{NewSize: 1}).ExtractErr()
			wantStatus(t, "shrink", err, http.StatusBadRequest, "must be greater than current size")
			remove(t, client, v.ID)
			wantStatus(t, "delete again", volumes.Delete(t.Context(), client, v.ID, nil).ExtractErr(), http.StatusNotFound, "could not be found")
		})
	}
}

func TestWrongVolumes(t *testing.T) {
	client := blockStorage(t, Shared(t), Region)
	for _, tt := range []struct {
		name string
		opts volumes.CreateOpts
		code int
		text string
	}{
		{"long key", volumes.CreateOpts{Size: 1, Metadata: map[string]string{strings.Repeat("k", 256): "v"}}, 400, "does not match any of the regexes"},
		{"long value", volumes.CreateOpts{Size: 1, Metadata: map[string]string{"k": strings.Repeat("v", 256)}}, 400, "is too long"},
		{"letter in key", volumes.CreateOpts{Size: 1, Metadata: map[string]string{"ü": "v"}}, 400, "does not match any of the regexes"},
		{"no type", volumes.CreateOpts{Size: 1, VolumeType: "none"}, 404, "could not be found"},
		{"no zone", volumes.CreateOpts{Size: 1, AvailabilityZone: "none"}, 400, "Availability zone 'none' is invalid"},
		{"no size", volumes.CreateOpts{}, 400, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := volumes.Create(t.Context(), client, tt.opts, nil).Extract()
			if err == nil {
				remove(t, client, v.ID)
			}
			wantStatus(t, tt.name, err, tt.code, tt.text)
		})
	}
}

func TestList(t *testing.T) {
	client := blockStorage(t, Shared(t), Region)
	want := map[string]bool{}
	for range 5 {
		want[create(t, client, volumes.CreateOpts{VolumeType: "ceph", Metadata: map[string]string{"remora:pool": "p"}}).ID] = true
	}
	create(t, client, volumes.CreateOpts{VolumeType: "ceph", Name: "other"})
	pages, got := 0, map[string]bool{}
	err := volumes.List(client, volumes.ListOpts{Limit: 2, Metadata: map[string]string{"remora:pool": "p"}}).EachPage(t.Context(), func(_ context.Context, p pagination.Page) (bool, error) {
		vs, err := volumes.ExtractVolumes(p)
		pages++
		for _, v := range vs {
			got[v.ID] = true
		}
		return true, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" || pages < 3 {
		t.Errorf("%d pages: %s", pages, diff)
	}
}

// attach is the request that works without a Nova: gophercloud's own always sends an
// instance_uuid, and Cinder refuses the empty one.
type attach struct {
	volume, host string // with no host it only reserves
}

func (a attach) ToAttachmentCreateMap() (map[string]any, error) {
	m := map[string]any{"volume_uuid": a.volume, "mode": "rw"}
	if a.host != "" {
		m["connector"] = connector(a.host)
	}
	return map[string]any{"attachment": m}, nil
}

func connector(host string) map[string]any {
	return map[string]any{"host": host, "ip": "127.0.0.1", "initiator": "iqn.2026-01.test:" + host, "platform": "x86_64", "os_type": "linux", "multipath": false, "mountpoint": "/dev/x"}
}

func TestAttachment(t *testing.T) {
	c := Shared(t)
	client := blockStorage(t, c, Region)
	for _, kind := range []string{"files", "ceph"} {
		t.Run(kind, func(t *testing.T) {
			v := create(t, client, volumes.CreateOpts{VolumeType: kind})
			_, err := attachments.Create(t.Context(), client, attachments.CreateOpts{VolumeUUID: v.ID, Connector: connector("h1"), Mode: "rw"}).Extract()
			wantStatus(t, "gophercloud's request", err, http.StatusBadRequest, "instance_uuid")

			a, err := attachments.Create(t.Context(), client, attach{v.ID, "h1"}).Extract()
			if err != nil {
				t.Fatal(err)
			}
			await(t, client, v.ID, "attaching")
			if err := attachments.Complete(t.Context(), client, a.ID).ExtractErr(); err != nil {
				t.Fatal(err)
			}
			got := await(t, client, v.ID, "in-use").Attachments
			if len(got) != 1 || got[0].AttachmentID != a.ID {
				t.Fatalf("attachments %+v", got)
			}
			if got[0].HostName != "" {
				t.Errorf("a plain member sees the host %q", got[0].HostName)
			}
			want := map[string]any{"driver_volume_type": "nfs", "name": "volume-" + v.ID, "export": share, "format": "raw"}
			if kind == "ceph" {
				want = map[string]any{"driver_volume_type": "rbd", "name": ceph.Pool + "/volume-" + v.ID, "auth_username": ceph.User, "cluster_name": "ceph"}
				if hosts := fmt.Sprint(a.ConnectionInfo["hosts"], a.ConnectionInfo["ports"]); !strings.Contains(ceph.Shared(t).Monitors, strings.ReplaceAll(strings.Trim(hosts, "[]"), "] [", ":")) {
					t.Errorf("the monitors are %s", hosts)
				}
			}
			for k, v := range want {
				if a.ConnectionInfo[k] != v {
					t.Errorf("connection_info has %s = %v, want %v", k, a.ConnectionInfo[k], v)
				}
			}

			for _, host := range []string{"h2", "h1"} {
				_, err = attachments.Create(t.Context(), client, attach{v.ID, host}).Extract()
				wantStatus(t, "attach once more to "+host, err, http.StatusBadRequest, "status must be available")
			}
			wantStatus(t, "delete in use", volumes.Delete(t.Context(), client, v.ID, nil).ExtractErr(), http.StatusBadRequest, "must not be migrating, attached")
			_, err = snapshots.Create(t.Context(), client, snapshots.CreateOpts{VolumeID: v.ID}).Extract()
			wantStatus(t, "snapshot in use", err, http.StatusBadRequest, "status must be available")
			await(t, client, v.ID, "in-use")
			if err := attachments.Delete(t.Context(), client, a.ID).ExtractErr(); err != nil {
				t.Fatal(err)
			}
			await(t, client, v.ID, "available")
			wantStatus(t, "detach again", attachments.Delete(t.Context(), client, a.ID).ExtractErr(), http.StatusNotFound, "could not be found")
		})
	}
}

// Of many that attach at once one gets the volume: Cinder compares the state and sets it in one
// step. That is the guard against two writers, for its metadata has none.
func TestOneOfManyAttaches(t *testing.T) {
	client := blockStorage(t, Shared(t), Region)
	v := create(t, client, volumes.CreateOpts{VolumeType: "ceph"})
	errs := make(chan error)
	for i := range 4 {
		go func() {
			_, err := attachments.Create(t.Context(), client, attach{v.ID, fmt.Sprintf("h%d", i)}).Extract()
			errs <- err
		}()
	}
	won := 0
	for range 4 {
		if err := <-errs; err == nil {
			won++
		} else {
			wantStatus(t, "to lose", err, http.StatusBadRequest, "status must be available")
		}
	}
	if won != 1 {
		t.Errorf("%d have it", won)
	}
	await(t, client, v.ID, "attaching")
}

// An attachment without a connector reserves, and its update attaches.
func TestReserve(t *testing.T) {
	client := blockStorage(t, Shared(t), Region)
	v := create(t, client, volumes.CreateOpts{VolumeType: "ceph"})
	a, err := attachments.Create(t.Context(), client, attach{volume: v.ID}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	await(t, client, v.ID, "reserved")
	a, err = attachments.Update(t.Context(), client, a.ID, attachments.UpdateOpts{Connector: connector("h1")}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	if a.ConnectionInfo["name"] != ceph.Pool+"/volume-"+v.ID {
		t.Errorf("connection_info %v", a.ConnectionInfo)
	}
	await(t, client, v.ID, "attaching")
}

func TestExtendInUse(t *testing.T) {
	client := blockStorage(t, Shared(t), Region)
	v := create(t, client, volumes.CreateOpts{VolumeType: "ceph"})
	a, err := attachments.Create(t.Context(), client, attach{v.ID, "h1"}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	if err := attachments.Complete(t.Context(), client, a.ID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	old := *client
	old.Microversion = "3.41"
	err = volumes.ExtendSize(t.Context(), &old, v.ID, volumes.ExtendSizeOpts{NewSize: 2}).ExtractErr()
	wantStatus(t, "before 3.42", err, http.StatusBadRequest, "status")
	if err := volumes.ExtendSize(t.Context(), client, v.ID, volumes.ExtendSizeOpts{NewSize: 2}).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	if v := await(t, client, v.ID, "in-use"); v.Size != 2 {
		t.Errorf("%d GB", v.Size)
	}
}

func TestQuota(t *testing.T) {
	c := Shared(t)
	client := blockStorage(t, c, Region)
	t.Cleanup(func() {
		if err := c.SetQuota(context.WithoutCancel(t.Context()), -1, -1); err != nil {
			t.Error(err)
		}
	})
	create(t, client, volumes.CreateOpts{VolumeType: "ceph"})
	for _, tt := range []struct {
		volumes, gigabytes int
		text               string
	}{{1, -1, "VolumeLimitExceeded"}, {-1, 50, "VolumeSizeExceedsAvailableQuota"}} {
		if err := c.SetQuota(t.Context(), tt.volumes, tt.gigabytes); err != nil {
			t.Fatal(err)
		}
		v, err := volumes.Create(t.Context(), client, volumes.CreateOpts{Size: 60}, nil).Extract()
		if err == nil {
			remove(t, client, v.ID)
		}
		wantStatus(t, tt.text, err, http.StatusRequestEntityTooLarge, tt.text)
	}
}

func TestError(t *testing.T) {
	c := Shared(t)
	client := blockStorage(t, c, Region)
	// What no back end has room for is accepted, and is in error a little later.
	v, err := volumes.Create(t.Context(), client, volumes.CreateOpts{Size: 90000, VolumeType: "ceph"}, nil).Extract()
	if err != nil {
		t.Fatal(err)
	}
	await(t, client, v.ID, "error")
	remove(t, client, v.ID)

	w := create(t, client, volumes.CreateOpts{VolumeType: "ceph"})
	if err := c.ResetState(t.Context(), w.ID, "error"); err != nil {
		t.Fatal(err)
	}
	_, err = attachments.Create(t.Context(), client, attach{w.ID, "h1"}).Extract()
	wantStatus(t, "attach in error", err, http.StatusBadRequest, "is in an error state")
}

func TestSnapshot(t *testing.T) {
	client := blockStorage(t, Shared(t), Region)
	cluster := ceph.Shared(t)
	image := func(v *volumes.Volume) string { return "volume-" + v.ID }
	v := create(t, client, volumes.CreateOpts{VolumeType: "ceph", Metadata: map[string]string{"remora:id": "1"}})
	line(t, cluster, image(v), "old")
	s, err := snapshots.Create(t.Context(), client, snapshots.CreateOpts{VolumeID: v.ID, Name: "s", Metadata: map[string]string{"remora:id": "2"}}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() error {
		s, err = snapshots.Get(t.Context(), client, s.ID).Extract()
		if err == nil && s.Status != "available" {
			err = fmt.Errorf("snapshot is %s", s.Status)
		}
		return err
	})
	line(t, cluster, image(v), "new")
	wantStatus(t, "delete with snapshots", volumes.Delete(t.Context(), client, v.ID, nil).ExtractErr(), http.StatusBadRequest, "have snapshots")
	restored := create(t, client, volumes.CreateOpts{SnapshotID: s.ID})
	if got := line(t, cluster, image(restored), ""); got != "old" {
		t.Errorf("the volume of the snapshot has %q", got)
	}
	cloned := create(t, client, volumes.CreateOpts{SourceVolID: v.ID})
	if got := line(t, cluster, image(cloned), ""); got != "new" {
		t.Errorf("the clone has %q", got)
	}
	for _, copied := range []*volumes.Volume{restored, cloned} {
		if len(copied.Metadata) != 0 || copied.VolumeType != "ceph" {
			t.Errorf("a copy has the type %q and the metadata %v", copied.VolumeType, copied.Metadata)
		}
	}
}

// line reads the line at the beginning of an image, or writes one.
func line(t *testing.T, cluster *ceph.Cluster, image, text string) string {
	t.Helper()
	m, err := cluster.Fuse(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	f, err := os.OpenFile(m.File(image), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 64)
	if text == "" {
		_, err = f.ReadAt(b, 0)
	} else if _, err = f.WriteAt([]byte(text+"\n"), 0); err == nil {
		err = f.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(b), "\n")
	return first
}
