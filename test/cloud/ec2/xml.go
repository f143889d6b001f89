package ec2

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// The answers, with the names that elements have in EC2's API of 2016-11-15.

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

type tagItem struct {
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

func tagsXML(tags map[string]string) (out []tagItem) {
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		out = append(out, tagItem{key, tags[key]})
	}
	return out
}

type taggedItem struct {
	ID    string `xml:"resourceId"`
	Type  string `xml:"resourceType"`
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

type taggedXML struct {
	NextToken string       `xml:"nextToken,omitempty"`
	Tags      []taggedItem `xml:"tagSet>item"`
}

type attachmentItem struct {
	Volume   string `xml:"volumeId"`
	Instance string `xml:"instanceId"`
	Device   string `xml:"device"`
	Status   string `xml:"status"`
	Time     string `xml:"attachTime"`
	Delete   bool   `xml:"deleteOnTermination"`
}

func attachmentXML(a attachment) attachmentItem {
	return attachmentItem{a.Volume, a.Instance, a.Device, a.State, stamp(a.Since), false}
}

type volumeItem struct {
	ID         string           `xml:"volumeId"`
	Size       int              `xml:"size"`
	Snapshot   string           `xml:"snapshotId"`
	Zone       string           `xml:"availabilityZone"`
	ZoneID     string           `xml:"availabilityZoneId"`
	Status     string           `xml:"status"`
	Created    string           `xml:"createTime"`
	Attached   []attachmentItem `xml:"attachmentSet>item"`
	Tags       []tagItem        `xml:"tagSet>item"`
	Type       string           `xml:"volumeType"`
	IOPS       int              `xml:"iops,omitempty"`
	Throughput int              `xml:"throughput,omitempty"`
	Encrypted  bool             `xml:"encrypted"`
	Key        string           `xml:"kmsKeyId,omitempty"`
	Multi      bool             `xml:"multiAttachEnabled"`
}

// volumeXML is a volume with the tags that one cache has.
func (c *Cloud) volumeXML(v volume, tags map[string]string) volumeItem {
	out := volumeItem{
		ID: v.ID, Size: v.Size, Snapshot: v.Snapshot, Zone: v.Zone, ZoneID: zoneID(v.Zone), Status: v.State,
		Created: stamp(v.Created), Tags: tagsXML(tags), Type: v.Type, IOPS: v.IOPS, Throughput: v.Throughput,
		Encrypted: v.Encrypted, Key: v.Key, Multi: v.Multi,
	}
	for _, a := range v.Attached {
		out.Attached = append(out.Attached, attachmentXML(a))
	}
	return out
}

type volumesXML struct {
	NextToken string       `xml:"nextToken,omitempty"`
	Volumes   []volumeItem `xml:"volumeSet>item"`
}

type modificationItem struct {
	Volume         string `xml:"volumeId"`
	State          string `xml:"modificationState"`
	Progress       int    `xml:"progress"`
	Start          string `xml:"startTime"`
	End            string `xml:"endTime,omitempty"`
	FromSize       int    `xml:"originalSize"`
	FromIOPS       int    `xml:"originalIops,omitempty"`
	FromThroughput int    `xml:"originalThroughput,omitempty"`
	FromType       string `xml:"originalVolumeType"`
	FromMulti      bool   `xml:"originalMultiAttachEnabled"`
	ToSize         int    `xml:"targetSize"`
	ToIOPS         int    `xml:"targetIops,omitempty"`
	ToThroughput   int    `xml:"targetThroughput,omitempty"`
	ToType         string `xml:"targetVolumeType"`
	ToMulti        bool   `xml:"targetMultiAttachEnabled"`
}

type modifyXML struct {
	Modification modificationItem `xml:"volumeModification"`
}

type modificationsXML struct {
	NextToken     string             `xml:"nextToken,omitempty"`
	Modifications []modificationItem `xml:"volumeModificationSet>item"`
}

func modificationXML(v volume, now time.Time) modificationItem {
	m := v.mod
	out := modificationItem{
		Volume: v.ID, State: m.State, Progress: progress(m.Start, m.Until, now, m.State == "completed"), Start: stamp(m.Start),
		FromSize: m.From.Size, FromIOPS: m.From.IOPS, FromThroughput: m.From.Throughput, FromType: m.From.Type, FromMulti: m.From.Multi,
		ToSize: m.To.Size, ToIOPS: m.To.IOPS, ToThroughput: m.To.Throughput, ToType: m.To.Type, ToMulti: m.To.Multi,
	}
	if !m.End.IsZero() {
		out.End = stamp(m.End)
	}
	return out
}

// progress is in percent, and 100 only when it is done.
func progress(start, until, now time.Time, done bool) int {
	if done {
		return 100
	}
	if d := until.Sub(start); d > 0 {
		return min(99, int(100*now.Sub(start)/d))
	}
	return 0
}

type snapshotItem struct {
	ID          string    `xml:"snapshotId"`
	Volume      string    `xml:"volumeId"`
	Status      string    `xml:"status,omitempty"`
	State       string    `xml:"state,omitempty"` // what CreateSnapshots calls the status
	Start       string    `xml:"startTime"`
	Progress    string    `xml:"progress"`
	Owner       string    `xml:"ownerId"`
	Size        int       `xml:"volumeSize"`
	Description string    `xml:"description"`
	Encrypted   bool      `xml:"encrypted"`
	Key         string    `xml:"kmsKeyId,omitempty"`
	Tags        []tagItem `xml:"tagSet>item"`
}

func (c *Cloud) snapshotXML(s snapshot, tags map[string]string, now time.Time) snapshotItem {
	return snapshotItem{
		ID: s.ID, Volume: s.Volume, Status: s.State, Start: stamp(s.Start), Owner: c.conf.Account, Size: s.Size,
		Progress:    fmt.Sprintf("%d%%", progress(s.Start, s.Until, now, s.State == "completed")),
		Description: s.Description, Encrypted: s.Encrypted, Key: s.Key, Tags: tagsXML(tags),
	}
}

type snapshotsXML struct {
	NextToken string         `xml:"nextToken,omitempty"`
	Snapshots []snapshotItem `xml:"snapshotSet>item"`
}

type copiedXML struct {
	ID   string    `xml:"snapshotId"`
	Tags []tagItem `xml:"tagSet>item"`
}

type instanceState struct {
	Code int    `xml:"code"`
	Name string `xml:"name"`
}

func stateXML(name string) instanceState {
	code := map[string]int{"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
	return instanceState{code[name], name}
}

type changeXML struct {
	ID     string        `xml:"instanceId"`
	Now    instanceState `xml:"currentState"`
	Before instanceState `xml:"previousState"`
}

type changesXML struct {
	Changes []changeXML `xml:"instancesSet>item"`
}

type deviceItem struct {
	Device string `xml:"deviceName"`
	Volume string `xml:"ebs>volumeId"`
	Status string `xml:"ebs>status"`
	Time   string `xml:"ebs>attachTime"`
	Delete bool   `xml:"ebs>deleteOnTermination"`
}

type instanceItem struct {
	ID         string        `xml:"instanceId"`
	State      instanceState `xml:"instanceState"`
	Reason     string        `xml:"reason"`
	Type       string        `xml:"instanceType"`
	Launched   string        `xml:"launchTime"`
	Zone       string        `xml:"placement>availabilityZone"`
	Tenancy    string        `xml:"placement>tenancy"`
	Root       string        `xml:"rootDeviceName"`
	Devices    []deviceItem  `xml:"blockDeviceMapping>item"`
	Hypervisor string        `xml:"hypervisor"`
	Tags       []tagItem     `xml:"tagSet>item"`
}

type reservationItem struct {
	ID        string         `xml:"reservationId"`
	Owner     string         `xml:"ownerId"`
	Instances []instanceItem `xml:"instancesSet>item"`
}

type instancesXML struct {
	NextToken    string            `xml:"nextToken,omitempty"`
	Reservations []reservationItem `xml:"reservationSet>item"`
}

// xml is the instance in a reservation of its own.
func (i *Instance) xml() reservationItem {
	out := instanceItem{
		ID: i.ID, State: stateXML(i.state), Reason: i.reason, Type: i.Type, Launched: stamp(i.launched),
		Zone: i.Zone, Tenancy: "default", Root: "/dev/xvda", Hypervisor: "xen", Tags: tagsXML(i.Tags), // Nitro calls itself so too
	}
	for _, a := range i.region.on(i.ID) {
		out.Devices = append(out.Devices, deviceItem{a.Device, a.Volume, a.State, stamp(a.Since), false})
	}
	return reservationItem{"r-" + i.ID[2:], i.cloud.conf.Account, []instanceItem{out}}
}

type statusItem struct {
	ID       string        `xml:"instanceId"`
	Zone     string        `xml:"availabilityZone"`
	State    instanceState `xml:"instanceState"`
	System   string        `xml:"systemStatus>status"`
	Instance string        `xml:"instanceStatus>status"`
}

type statusesXML struct {
	NextToken string       `xml:"nextToken,omitempty"`
	Statuses  []statusItem `xml:"instanceStatusSet>item"`
}

func (i *Instance) statusXML() statusItem {
	health := "ok"
	switch {
	case i.state != "running":
		health = "not-applicable"
	case i.impaired:
		health = "impaired"
	}
	return statusItem{i.ID, i.Zone, stateXML(i.state), health, health}
}

type zoneXML struct {
	Name   string `xml:"zoneName"`
	ID     string `xml:"zoneId"`
	State  string `xml:"zoneState"`
	Region string `xml:"regionName"`
	Group  string `xml:"groupName"`
	OptIn  string `xml:"optInStatus"`
	Type   string `xml:"zoneType"`
}

type zonesXML struct {
	Zones []zoneXML `xml:"availabilityZoneInfo>item"`
}

type regionXML struct {
	Name     string `xml:"regionName"`
	Endpoint string `xml:"regionEndpoint"`
	OptIn    string `xml:"optInStatus"`
}

type regionsXML struct {
	Regions []regionXML `xml:"regionInfo>item"`
}
