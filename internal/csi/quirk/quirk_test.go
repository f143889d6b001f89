package quirk

import (
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range Table() {
		k, ok := kinds[e.ID]
		if !ok {
			t.Errorf("%s: there is no quirk %q", e.Driver, e.ID)
		}
		if _, err := path.Match(e.Driver, ""); err != nil || e.Driver == "" {
			t.Errorf("%q: no pattern", e.Driver)
		}
		if e.Source == "" || e.Means() == "" || strings.HasSuffix(e.Means(), ".") {
			t.Errorf("%s: %s: source %q, means %q", e.Driver, e.ID, e.Source, e.Means())
		}
		if needs := e.ID == NeedsTools || e.ID == NeedsModules; needs != (len(e.Needs) > 0) {
			t.Errorf("%s: %s: needs %q", e.Driver, e.ID, e.Needs)
		}
		if k.particular && len(e.Needs)+len(e.codes) == 0 {
			t.Errorf("%s: %s: says nothing", e.Driver, e.ID)
		}
		for condition := range strings.FieldsSeq(e.Versions) {
			if _, ok := number(strings.TrimLeft(condition, "<>=")); !ok || strings.Trim(condition[:1], "<>") != "" {
				t.Errorf("%s: %s: versions %q", e.Driver, e.ID, e.Versions)
			}
		}
		key := e.Driver + " " + string(e.ID)
		if seen[key] {
			t.Errorf("%s: twice", key)
		}
		seen[key] = true
	}
}

func TestVersions(t *testing.T) {
	for version, want := range map[string]bool{
		"1.9.9": false, "v2.0.0": true, "2.22.1": true, "2.22.2": false, "v2.23.0-rc1": false, "3": false, "2.5": true,
		"canary": true, "": true, "v99999999999999999999.1": true,
	} {
		if got := For(hetzner, version).Has(NoListVolumes); got != want {
			t.Errorf("%q: %t, want %t", version, got, want)
		}
	}
	for span, want := range map[string]bool{">1.2.3": false, ">=1.2.3": true, "<1.2.3": false, "<=1.2.3": true, ">=1.2 <2": true, ">=1 <1.2.3": false} {
		if got := within("1.2.3", span); got != want {
			t.Errorf("%s: %t", span, got)
		}
	}
}

func TestNames(t *testing.T) {
	for driver, want := range map[string]bool{"cephfs.csi.ceph.com": true, "prod.cephfs.csi.ceph.com": true, "cephfs.csi.ceph.com.evil": false, "nfs.csi.k8s.io": false} {
		if got := For(driver, "v3.12.2").Has(SlowSource); got != want {
			t.Errorf("%s: %t", driver, got)
		}
	}
	if got := For("nobody.knows.it", "1.0.0").Entries(); len(got) > 0 {
		t.Errorf("of an unknown driver: %v", got)
	}
}

func TestCode(t *testing.T) {
	for _, tt := range []struct {
		driver, rpc string
		code        codes.Code
		text        string
		want        codes.Code
	}{
		{ebs, "ControllerPublishVolume", codes.Internal, `Could not attach volume "vol-1" to node "i-2": api error VolumeInUse: vol-1 is already attached to an instance`, codes.FailedPrecondition},
		{ebs, "DeleteVolume", codes.Internal, `Could not delete volume ID "vol-1": api error VolumeInUse: Volume vol-1 is currently attached to i-1`, codes.FailedPrecondition},
		{ebs, "DeleteVolume", codes.Internal, "timeout", codes.Internal},
		{ebs, "CreateVolume", codes.Aborted, "Could not create volume: api error UnauthorizedOperation: You are not authorized", codes.PermissionDenied},
		{ebs, "CreateVolume", codes.Aborted, "An operation with the given Volume vol-1 already exists", codes.Aborted},
		{pd, "ControllerPublishVolume", codes.InvalidArgument, "operation op failed (RESOURCE_IN_USE_BY_ANOTHER_RESOURCE): The disk is used by b", codes.FailedPrecondition},
		{pd, "ControllerPublishVolume", codes.InvalidArgument, "no such type", codes.InvalidArgument},
		{cinder, "DeleteVolume", codes.Internal, `DeleteVolume failed with error cannot delete the volume "x", it's still attached to a node`, codes.FailedPrecondition},
		{do, "ControllerPublishVolume", codes.Internal, "is already attached to", codes.Internal},
	} {
		if got := For(tt.driver, "").Code(tt.rpc, tt.code, tt.text); got != tt.want {
			t.Errorf("%s: %s: %q: got %s, want %s", tt.driver, tt.rpc, tt.text, got, tt.want)
		}
	}
}

func TestParse(t *testing.T) {
	pool, err := Parse([]string{"one-at-a-time", "-needs-metadata", "as:" + ebs, "in-use-in-text"})
	if err != nil {
		t.Fatal(err)
	}
	s := For(do, "v4.16.0").With(pool)
	for id, want := range map[ID]bool{OneAtATime: true, NeedsMetadata: false, SharedMounts: true, InUseInText: true, NoListVolumes: false} {
		if got := s.Has(id); got != want {
			t.Errorf("%s: %t", id, got)
		}
	}
	if got := s.Code("ControllerPublishVolume", codes.Internal, "VolumeInUse"); got != codes.FailedPrecondition {
		t.Errorf("the corrections of the other driver: %s", got)
	}
	if got := s.Code("DeleteVolume", codes.Unknown, "the disk is in use"); got != codes.FailedPrecondition {
		t.Errorf("the corrections of all drivers: %s", got)
	}
	if s := For(do, "").With(Set{}); !s.Has(SharedMounts) {
		t.Error("a pool that says nothing changes something")
	}
}

func TestParseRefuses(t *testing.T) {
	for word, want := range map[string]string{
		"one-at-time":  `unknown quirk "one-at-time", did you mean "one-at-a-time"?`,
		"-shared":      `unknown quirk "shared"`,
		"":             `unknown quirk ""`,
		"as:ebs":       `quirk "as:ebs": nothing is known of a driver "ebs"`,
		"needs-tools":  `quirk "needs-tools": says nothing without its driver`,
		"as:ebs.csi.":  `quirk "as:ebs.csi.": nothing is known of a driver "ebs.csi."`,
		"-as:x":        `unknown quirk "as:x"`,
		"needs-module": `unknown quirk "needs-module", did you mean "needs-modules"?`,
	} {
		_, err := Parse([]string{word})
		if err == nil || !strings.HasPrefix(err.Error(), want) || !errors.Is(err, errdefs.ErrInvalid) || len(errdefs.Hints(err)) != 1 {
			t.Errorf("%q: %v (hints %q)", word, err, errdefs.Hints(err))
		}
	}
}

func TestNeeds(t *testing.T) {
	pool, err := Parse([]string{"as:nfs.csi.k8s.io"})
	if err != nil {
		t.Fatal(err)
	}
	s := For(smb, "").With(pool)
	if diff := cmp.Diff([]string{"mount.cifs", "mount.nfs"}, s.Needs(NeedsTools)); diff != "" {
		t.Errorf("tools (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"cifs", "nfs"}, s.Needs(NeedsModules)); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
}

// FuzzDriver gives what a driver says of itself and in its errors.
func FuzzDriver(f *testing.F) {
	f.Add(ebs, "v1.64.0", "DeleteVolume", "VolumeInUse")
	f.Add(hetzner, "2.", "ListVolumes", "")
	f.Add("[", "9999999999999999999999", "", "\xff")
	f.Fuzz(func(t *testing.T, driver, version, rpc, text string) {
		s := For(driver, version)
		for _, code := range []codes.Code{codes.OK, codes.NotFound} {
			if got := s.Code(rpc, code, text); got != code {
				t.Errorf("%s became %s", code, got)
			}
		}
		if n, ok := number(version); ok && (n[0] < 0 || compare(n, n) != 0 || !within(version, ">=0")) {
			t.Errorf("version %q is %v", version, n)
		}
	})
}
