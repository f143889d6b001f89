package csi

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/csi/kubeshim"
	"github.com/remora-plugins/remora/internal/csi/launch"
	"github.com/remora-plugins/remora/internal/csi/quirk"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// config is the keys of a pool.
type config struct {
	launch.Keys
	kubeshim.Options

	Name       string            `opt:"csi_driver" help:"name that the CSI driver has to call itself, such as ebs.csi.aws.com; without it any is taken"`
	Namespace  string            `opt:"namespace" default:"remora" help:"begins the names that the storage sees: hosts with the same one share the volumes of a shared storage"`
	Size       catalog.Bytes     `opt:"size" default:"16g" help:"size of a volume that is made without one; 0 leaves it to the CSI driver"`
	FS         string            `opt:"fs" help:"file system of a volume that is made without one, such as ext4 or xfs; without it the CSI driver's own choice"`
	Access     string            `opt:"access" enum:"rw-single,ro-single,rw-many,ro-many,one-writer-many-readers,rw-one-container" help:"who may use a volume that is made without saying so: one host or many, to write or to read; without it rw-single, unless the CSI driver is known to want another"`
	Mount      []string          `opt:"mount_options" help:"mount options of every volume, such as noatime"`
	Flags      []string          `opt:"mount_flags" help:"the same as mount_options, by the name that CSI has for them"`
	Reclaim    string            `opt:"reclaim" enum:"delete,retain" default:"delete" help:"whether a volume that is removed is deleted from the storage, or only forgotten"`
	Detach     time.Duration     `opt:"detach_after" default:"10s" help:"how long a volume stays attached to the host after its last unmount, or a network file system that needs no attaching mounted, in case it is mounted again"`
	Wait       time.Duration     `opt:"wait" default:"20s" help:"how long a mount waits for room on the host, or for another one to let go, before it is refused"`
	Parameters map[string]string `opt:"parameters" help:"parameters of new volumes, as the CSI driver's own page has them"`
	Snapshots  map[string]string `opt:"snapshot_parameters" help:"parameters of new snapshots"`
	Secrets    map[string]string `opt:"secrets" help:"secrets that the CSI driver wants with each call, each as file:/PATH, which only its owner may read, or env:VARIABLE"`
	Timeouts   map[string]string `opt:"timeouts" help:"how long one call may take, by its name, such as { CreateVolume = \"5m\" }"`
	Quirks     []string          `opt:"quirks" help:"what to distrust of the CSI driver besides what is known: NAME, -NAME to take one away, as:DRIVER for all of another one"`
}

// Driver describes the driver.
func Driver() catalog.Volume {
	return catalog.NewVolume("csi", "the storage of any vendor that has a CSI driver for it", open).WithOptions(describe()).WithExamples(examples)
}

func open(ctx context.Context, c config, env catalog.Env) (volume.Driver, error) {
	s, err := c.check()
	if err != nil {
		return nil, err
	}
	return start(ctx, c, s, env)
}

var namespaceForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?$`)

// settings is what the texts of a config come to.
type settings struct {
	timeouts map[string]time.Duration
	quirks   quirk.Set
	flags    []string
	secrets  secrets
	pace     pace
}

// Check implements [catalog.Checker].
func (c config) Check() error {
	_, err := c.parse()
	return err
}

// check parses the table, and reads the secrets that it names.
func (c config) check() (settings, error) {
	s, err := c.parse()
	if err == nil {
		err = c.readKube()
	}
	if err == nil {
		s.secrets, err = readSecrets(c.Secrets)
	}
	return s, err
}

// parse refuses what is wrong in the pool's table.
func (c config) parse() (s settings, err error) {
	if !namespaceForm.MatchString(c.Namespace) {
		return s, errdefs.Errorf(errdefs.ErrInvalid, "key %q: %q: want up to 16 lower-case letters, digits and dashes, as every storage takes them", "namespace", c.Namespace)
	}
	for key, d := range map[string]time.Duration{"detach_after": c.Detach, "wait": c.Wait} {
		if d < 0 {
			return s, errdefs.Errorf(errdefs.ErrInvalid, "key %q: %s is below nothing", key, d)
		}
	}
	if err := c.Keys.Check(); err != nil {
		return s, err
	}
	if err := c.checkKube(); err != nil {
		return s, err
	}
	s.timeouts, s.pace = map[string]time.Duration{}, normal
	for _, rpc := range slices.Sorted(maps.Keys(c.Timeouts)) {
		d, err := time.ParseDuration(c.Timeouts[rpc])
		if err != nil || d <= 0 {
			return s, errdefs.Errorf(errdefs.ErrInvalid, "key %q: %s: %q is not a duration such as 90s or 5m", "timeouts", rpc, c.Timeouts[rpc])
		}
		if !slices.Contains(calls, rpc) {
			return s, errdefs.Errorf(errdefs.ErrInvalid, "key %q: %w", "timeouts", catalog.Unknown("call", rpc, calls))
		}
		s.timeouts[rpc] = d
	}
	if s.quirks, err = quirk.Parse(c.Quirks); err != nil {
		return s, errdefs.Errorf(errdefs.ErrInvalid, "key %q: %w", "quirks", err)
	}
	s.flags = slices.Concat(c.Mount, c.Flags)
	for _, f := range s.flags {
		if err := checkFlag(f); err != nil {
			return s, errdefs.Errorf(errdefs.ErrInvalid, "key %q: %w", "mount_options", err)
		}
	}
	return s, nil
}

// calls are the RPCs that may take long enough for somebody to bound them otherwise.
var calls = []string{
	callCreate, callDelete, callAttach, callDetach, callStage, callUnstage, callPublish, callUnpublish, callValidate, callGet, callList, callGrow,
	callGrowNode, callStats, callSnapshot, callUnsnapshot, callGroup, callUngroup, callGetGroup, "GetPluginInfo", "GetPluginCapabilities", "Probe", "ControllerGetCapabilities",
	"NodeGetCapabilities", "NodeGetInfo", "GroupControllerGetCapabilities",
}

// The RPCs, as they are called in records and errors.
const (
	callCreate     = "CreateVolume"
	callDelete     = "DeleteVolume"
	callAttach     = "ControllerPublishVolume"
	callDetach     = "ControllerUnpublishVolume"
	callStage      = "NodeStageVolume"
	callUnstage    = "NodeUnstageVolume"
	callPublish    = "NodePublishVolume"
	callUnpublish  = "NodeUnpublishVolume"
	callValidate   = "ValidateVolumeCapabilities"
	callGet        = "ControllerGetVolume"
	callList       = "ListVolumes"
	callGrow       = "ControllerExpandVolume"
	callGrowNode   = "NodeExpandVolume"
	callStats      = "NodeGetVolumeStats"
	callSnapshot   = "CreateSnapshot"
	callUnsnapshot = "DeleteSnapshot"
	callGroup      = "CreateVolumeGroupSnapshot"
	callUngroup    = "DeleteVolumeGroupSnapshot"
	callGetGroup   = "GetVolumeGroupSnapshot"
)

// checkFlag refuses what is no mount option.
func checkFlag(flag string) error {
	if flag == "" || strings.ContainsAny(flag, " \t\n\x00") || strings.HasPrefix(flag, "-") {
		return errdefs.Errorf(errdefs.ErrInvalid, "%q is not a mount option such as noatime", flag)
	}
	return nil
}
