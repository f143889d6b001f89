package conn

import "time"

// Timeouts. An engine waits 120 s for a Create and a Mount, and 60 s for the rest. What one verb of an engine
// calls one after the other stays below that with ten seconds to spare:
//
//	Create   CreateVolume                                                        100 s
//	Mount    ControllerPublishVolume, NodeStageVolume, NodePublishVolume     60+35+15 s
//	Unmount  NodeUnpublishVolume, NodeUnstageVolume                             20+30 s
//	Remove   ControllerUnpublishVolume, DeleteVolume                            25+25 s
//
// A call that takes longer is repeated, which finds what the first one has done.
var timeouts = map[string]time.Duration{
	"GetPluginInfo":                  5 * time.Second,
	"GetPluginCapabilities":          5 * time.Second,
	"Probe":                          5 * time.Second,
	"ControllerGetCapabilities":      5 * time.Second,
	"GroupControllerGetCapabilities": 5 * time.Second,
	"NodeGetCapabilities":            5 * time.Second,
	"NodeGetInfo":                    10 * time.Second,
	"CreateVolume":                   100 * time.Second,
	"DeleteVolume":                   25 * time.Second,
	"ControllerPublishVolume":        60 * time.Second,
	"ControllerUnpublishVolume":      25 * time.Second,
	"NodeStageVolume":                35 * time.Second,
	"NodePublishVolume":              15 * time.Second,
	"NodeUnpublishVolume":            20 * time.Second,
	"NodeUnstageVolume":              30 * time.Second,
	"NodeGetVolumeStats":             5 * time.Second,
	"ValidateVolumeCapabilities":     15 * time.Second,
	"GetCapacity":                    10 * time.Second,
	"ControllerGetVolume":            10 * time.Second,
	"ListVolumes":                    30 * time.Second,
	"ListSnapshots":                  30 * time.Second,
	"GetSnapshot":                    10 * time.Second,
	"CreateSnapshot":                 100 * time.Second,
	"DeleteSnapshot":                 50 * time.Second,
	"ControllerExpandVolume":         60 * time.Second,
	"NodeExpandVolume":               45 * time.Second,
	"ControllerModifyVolume":         60 * time.Second,
	"CreateVolumeGroupSnapshot":      100 * time.Second,
	"DeleteVolumeGroupSnapshot":      50 * time.Second,
	"GetVolumeGroupSnapshot":         10 * time.Second,
}

// otherTimeout is for an RPC that the table does not have.
const otherTimeout = 30 * time.Second

// Timeout is how long an RPC may take where nothing else was configured.
func Timeout(rpc string) time.Duration {
	if t, ok := timeouts[rpc]; ok {
		return t
	}
	return otherTimeout
}

// limit is how long an RPC may take.
func (d *Driver) limit(rpc string) time.Duration {
	if t := d.conf.Timeouts[rpc]; t > 0 {
		return t
	}
	return Timeout(rpc)
}
