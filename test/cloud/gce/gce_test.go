package gce

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/api/compute/v1"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/cloud/fake"
	"github.com/remora-plugins/remora/test/cloud/machine"
)

const (
	project = "fake-project"
	zone    = "us-central1-a"
	zoneB   = "us-central1-b"
)

// world is a cloud with a clock that stands still, its API by HTTP, and a client.
type world struct {
	*Cloud
	api   *compute.Service
	t     *testing.T
	clock *fake.Manual
	url   string
}

func start(t *testing.T, cfg Config) *world {
	t.Helper()
	cfg.NoAuth = true
	w := serve(t, cfg)
	w.api = client(t, w.url, option.WithoutAuthentication())
	return w
}

func serve(t *testing.T, cfg Config) *world {
	t.Helper()
	clock := fake.NewManual(time.Now())
	cfg.Dir, cfg.Clock = t.TempDir(), clock
	c := New(cfg)
	srv := httptest.NewServer(c.Handler())
	t.Cleanup(srv.Close)
	return &world{Cloud: c, t: t, clock: clock, url: srv.URL}
}

func client(t *testing.T, url string, opts ...option.ClientOption) *compute.Service {
	t.Helper()
	api, err := compute.NewService(t.Context(), append(opts, option.WithEndpoint(url+"/compute/v1/"))...)
	if err != nil {
		t.Fatal(err)
	}
	return api
}

// host adds an instance in a zone that can be looked at.
func (w *world) host(name string) *machine.Machine {
	w.t.Helper()
	testenv.Require(w.t, testenv.Loop)
	m, err := machine.New(w.t.TempDir())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := m.Close(); err != nil {
			w.t.Error(err)
		}
	})
	w.add(zone, name, m)
	return m
}

func (w *world) add(zone, name string, m *machine.Machine) {
	w.t.Helper()
	if err := w.AddInstance(zone, name, m); err != nil {
		w.t.Fatal(err)
	}
}

// end lets an operation end and wants it to end well.
func (w *world) end(op *compute.Operation, err error) *compute.Operation {
	w.t.Helper()
	op = w.ended(op, err)
	if op.Error != nil {
		w.t.Fatalf("%s: %s", op.OperationType, op.Error.Errors[0].Message)
	}
	return op
}

// ended lets an operation end.
func (w *world) ended(op *compute.Operation, err error) *compute.Operation {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	w.clock.Advance(time.Minute)
	if op.Zone == "" {
		op, err = w.api.GlobalOperations.Get(project, op.Name).Do()
	} else {
		op, err = w.api.ZoneOperations.Get(project, last(op.Zone), op.Name).Do()
	}
	if err != nil || op.Status != "DONE" || op.Progress != 100 {
		w.t.Fatalf("after a minute: %v %v", op, err)
	}
	return op
}

func (w *world) create(d *compute.Disk) *compute.Disk {
	w.t.Helper()
	w.end(w.api.Disks.Insert(project, zone, d).Do())
	return w.get(d.Name)
}

func (w *world) get(name string) *compute.Disk {
	w.t.Helper()
	d, err := w.api.Disks.Get(project, zone, name).Do()
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *world) attach(instance, disk, device string) *compute.InstancesAttachDiskCall {
	return w.api.Instances.AttachDisk(project, zone, instance, &compute.AttachedDisk{
		Source: "projects/" + project + "/zones/" + zone + "/disks/" + disk, DeviceName: device,
	})
}

func link(m *machine.Machine, device string) string {
	return filepath.Join(m.Dev(), "disk/by-id/google-"+device)
}

// refused wants a status, a reason and a part of the message.
func refused(t *testing.T, what string, err error, status int, reason, text string) {
	t.Helper()
	var e *googleapi.Error
	if !errors.As(err, &e) || e.Code != status || len(e.Errors) != 1 || e.Errors[0].Reason != reason || !strings.Contains(e.Message, text) {
		t.Errorf("%s: %v, want %d %s %q", what, err, status, reason, text)
	}
}

func TestDiskIsMadeInSteps(t *testing.T) {
	w := start(t, Config{Create: 4 * time.Second})
	op, err := w.api.Disks.Insert(project, zone, &compute.Disk{
		Name: "data", SizeGb: 10, Type: "zones/" + zone + "/diskTypes/pd-ssd", Description: "of remora", Labels: map[string]string{"remora": "1"},
	}).Do()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"PENDING CREATING", "RUNNING CREATING", "RUNNING CREATING", "RUNNING CREATING", "DONE READY"} {
		now, err := w.api.ZoneOperations.Get(project, zone, op.Name).Do()
		if err != nil {
			t.Fatal(err)
		}
		if got := now.Status + " " + w.get("data").Status; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		w.clock.Advance(time.Second)
	}
	d := w.get("data")
	if d.SizeGb != 10 || last(d.Type) != "pd-ssd" || d.Description != "of remora" || d.Labels["remora"] != "1" || last(d.Zone) != zone {
		t.Errorf("disk %+v", d)
	}
	if !strings.HasSuffix(op.TargetLink, "/zones/"+zone+"/disks/data") || op.TargetId != d.Id || op.OperationType != "insert" {
		t.Errorf("operation %+v", op)
	}
	w.end(w.api.Disks.Delete(project, zone, "data").Do())
	_, err = w.api.Disks.Get(project, zone, "data").Do()
	refused(t, "get a deleted one", err, 404, "notFound", "disks/data' was not found")
	_, err = w.api.Disks.Delete(project, zone, "data").Do()
	refused(t, "delete it again", err, 404, "notFound", "was not found")
}

func TestWaitForAnOperation(t *testing.T) {
	w := start(t, Config{Create: time.Second, Wait: 10 * time.Millisecond})
	op, err := w.api.Disks.Insert(project, zone, &compute.Disk{Name: "data", SizeGb: 10}).Do()
	if err != nil {
		t.Fatal(err)
	}
	if op, err = w.api.ZoneOperations.Wait(project, zone, op.Name).Do(); err != nil || op.Status == "DONE" {
		t.Errorf("waited 10 ms: %v %v", op, err)
	}
	w.cfg.Wait = time.Minute
	done := make(chan string)
	go func() {
		op, err := w.api.ZoneOperations.Wait(project, zone, op.Name).Do()
		done <- fmt.Sprint(op.Status, err)
	}()
	for w.Calls.Counts()["operations.get"].Calls == 0 { // so that the wait is likely on its way
		if _, err := w.api.ZoneOperations.Get(project, zone, op.Name).Do(); err != nil {
			t.Fatal(err)
		}
	}
	w.clock.Advance(time.Second)
	if got := <-done; got != "DONE<nil>" {
		t.Errorf("waited: %s", got)
	}
}

func TestRequestIDs(t *testing.T) {
	w := start(t, Config{Create: time.Second})
	const id = "0f7f0ac8-5b1c-4b8f-9d51-7f5d1b6a2c11"
	insert := func(name, id string) (*compute.Operation, error) {
		return w.api.Disks.Insert(project, zone, &compute.Disk{Name: name, SizeGb: 10}).RequestId(id).Do()
	}
	w.Calls.Add(fake.Fault{Call: "disks.insert", What: fake.Lose, Times: 1})
	if _, err := insert("data", id); err == nil {
		t.Error("the lost answer came")
	}
	a, err1 := insert("data", id)
	b, err2 := insert("data", id)
	if err1 != nil || err2 != nil || a.Name != b.Name {
		t.Errorf("the same request again: %v %v, %v %v", a, err1, b, err2)
	}
	_, err := insert("data", "1f7f0ac8-5b1c-4b8f-9d51-7f5d1b6a2c11")
	refused(t, "another request", err, 409, "alreadyExists", "disks/data' already exists")
	_, err = insert("data", "mine")
	refused(t, "no UUID", err, 400, "invalid", "valid UUID")
}

func TestWrongInserts(t *testing.T) {
	w := start(t, Config{QuotaGB: 1000})
	key := func(name string) *compute.CustomerEncryptionKey {
		return &compute.CustomerEncryptionKey{KmsKeyName: name}
	}
	kms := "projects/p/locations/%s/keyRings/r/cryptoKeys/k"
	for what, c := range map[string]struct {
		disk   compute.Disk
		status int
		reason string
		text   string
	}{
		"name":              {compute.Disk{Name: "My_Disk"}, 400, "invalid", "resource.name"},
		"name of 64":        {compute.Disk{Name: strings.Repeat("a", 64)}, 400, "invalid", "resource.name"},
		"name ends in dash": {compute.Disk{Name: "a-"}, 400, "invalid", "resource.name"},
		"type":              {compute.Disk{Type: "zones/z/diskTypes/pd-fast"}, 400, "invalid", "resource.type"},
		"small":             {compute.Disk{SizeGb: 9}, 400, "invalid", "cannot be smaller than 10 GB"},
		"small extreme":     {compute.Disk{SizeGb: 100, Type: "diskTypes/pd-extreme"}, 400, "invalid", "cannot be smaller than 500 GB"},
		"large":             {compute.Disk{SizeGb: 65537}, 400, "invalid", "too large"},
		"iops of a pd-ssd":  {compute.Disk{Type: "diskTypes/pd-ssd", ProvisionedIops: 5000}, 400, "invalid", "resource.provisionedIops"},
		"throughput":        {compute.Disk{Type: "diskTypes/hyperdisk-balanced", ProvisionedThroughput: 5000}, 400, "invalid", "Must be between 140 and 2400"},
		"label key":         {compute.Disk{Labels: map[string]string{"Remora": "x"}}, 400, "invalid", "resource.labels"},
		"label value":       {compute.Disk{Labels: map[string]string{"remora": "My Data"}}, 400, "invalid", "resource.labels"},
		"snapshot":          {compute.Disk{SourceSnapshot: "global/snapshots/none"}, 404, "notFound", "snapshots/none"},
		"key":               {compute.Disk{DiskEncryptionKey: key("k")}, 400, "invalid", "malformed"},
		"key elsewhere":     {compute.Disk{DiskEncryptionKey: key(fmt.Sprintf(kms, "europe-west1"))}, 400, "invalid", "not in the region"},
		"over the quota":    {compute.Disk{SizeGb: 1001}, 403, "quotaExceeded", "DISKS_TOTAL_GB"},
	} {
		d := c.disk
		if d.Name == "" {
			d.Name = "data"
		}
		_, err := w.api.Disks.Insert(project, zone, &d).Do()
		refused(t, what, err, c.status, c.reason, c.text)
	}
	_, err := w.api.Disks.Insert(project, "mars-a", &compute.Disk{Name: "data"}).Do()
	refused(t, "zone", err, 400, "invalid", "Unknown zone")
	_, err = w.api.Disks.Insert("other", zone, &compute.Disk{Name: "data"}).Do()
	refused(t, "project", err, 404, "notFound", "projects/other")

	d := w.create(&compute.Disk{
		Name: "good", SizeGb: 20, Type: "diskTypes/hyperdisk-balanced", ProvisionedIops: 6000, ProvisionedThroughput: 200,
		DiskEncryptionKey: key(fmt.Sprintf(kms, "us-central1")),
	})
	if d.ProvisionedIops != 6000 || d.ProvisionedThroughput != 200 || d.DiskEncryptionKey.KmsKeyName != fmt.Sprintf(kms, "us-central1")+"/cryptoKeyVersions/1" {
		t.Errorf("disk %+v", d)
	}
	if d := w.create(&compute.Disk{Name: "plain", Type: "diskTypes/pd-balanced"}); d.SizeGb != 100 {
		t.Errorf("the size by default is %d", d.SizeGb)
	}
}

func TestLabels(t *testing.T) {
	w := start(t, Config{})
	d := w.create(&compute.Disk{Name: "data", SizeGb: 10, Labels: map[string]string{"a": "1"}})
	set := func(print string, labels map[string]string) (*compute.Operation, error) {
		return w.api.Disks.SetLabels(project, zone, "data", &compute.ZoneSetLabelsRequest{LabelFingerprint: print, Labels: labels}).Do()
	}
	w.end(set(d.LabelFingerprint, map[string]string{"b": "2"}))
	if got := w.get("data"); got.Labels["a"] != "" || got.Labels["b"] != "2" || got.LabelFingerprint == d.LabelFingerprint {
		t.Errorf("labels %v, fingerprint %s", got.Labels, got.LabelFingerprint)
	}
	_, err := set(d.LabelFingerprint, map[string]string{"c": "3"})
	refused(t, "with an old fingerprint", err, 412, "conditionNotMet", "fingerprint")
	_, err = set("", map[string]string{"c": "3"})
	refused(t, "without one", err, 412, "conditionNotMet", "fingerprint")
	_, err = set(w.get("data").LabelFingerprint, map[string]string{"C": "3"})
	refused(t, "upper case", err, 400, "invalid", "resource.labels")
}

func TestFaults(t *testing.T) {
	w := start(t, Config{})
	w.Calls.Add(fake.Fault{Call: "disks.get", What: fake.Throttle, Times: 1})
	_, err := w.api.Disks.Get(project, zone, "x").Do()
	refused(t, "throttled", err, 403, "rateLimitExceeded", "Quota exceeded")
	w.Calls.Add(fake.Fault{Call: "disks.insert", What: fake.Fail, Times: 1})
	_, err = w.api.Disks.Insert(project, zone, &compute.Disk{Name: "data", SizeGb: 10}).Do()
	refused(t, "fails", err, 503, "backendError", "Backend Error")
	w.Calls.Add(fake.Fault{Call: "disks.insert", What: fake.Errored, Times: 1})
	op := w.ended(w.api.Disks.Insert(project, zone, &compute.Disk{Name: "data", SizeGb: 10}).Do())
	if op.Error == nil || op.Error.Errors[0].Code != "INTERNAL_ERROR" || op.HttpErrorStatusCode != 500 {
		t.Errorf("an operation that was to fail: %+v", op)
	}
	_, err = w.api.Disks.Get(project, zone, "data").Do()
	refused(t, "its disk", err, 404, "notFound", "")
	w.Calls.Add(fake.Fault{Call: "disks.list", What: fake.Hang, Times: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := w.api.Disks.List(project, zone).Context(ctx).Do(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a list that hangs: %v", err)
	}
}

func TestLimitOfCalls(t *testing.T) {
	w := start(t, Config{Reads: 3, Writes: 1})
	read := func() error { _, err := w.api.Disks.List(project, zone).Do(); return err }
	for range 3 {
		if err := read(); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, "the fourth", read(), 403, "rateLimitExceeded", "Queries per minute")
	if _, err := w.api.Disks.Insert(project, zone, &compute.Disk{Name: "a", SizeGb: 10}).Do(); err != nil {
		t.Errorf("a write: %v", err)
	}
	_, err := w.api.Disks.Insert(project, zone, &compute.Disk{Name: "b", SizeGb: 10}).Do()
	refused(t, "the second", err, 403, "rateLimitExceeded", "Queries per minute")
	w.clock.Advance(time.Minute)
	if err := read(); err != nil {
		t.Errorf("a minute later: %v", err)
	}
	if got, want := w.Calls.Counts()["disks.list"], (fake.Count{Calls: 5, Throttled: 1}); got != want {
		t.Errorf("counted %v, want %v", got, want)
	}
}
