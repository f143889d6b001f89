package ec2_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/test/cloud/ec2"
)

// sectors reads how large a volume's device is.
func sectors(t *testing.T, i *ec2.Instance, id string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(i.Machine().Sys(), "block", filepath.Base(device(t, i, id)), "size"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// find returns the ids of the volumes that have one of the values for a filter.
func (l *lab) find(name string, values ...string) []string {
	l.Helper()
	in := &awsec2.DescribeVolumesInput{}
	if name != "" {
		in.Filters = []types.Filter{{Name: aws.String(name), Values: values}}
	}
	out, err := l.east.DescribeVolumes(l.Context(), in)
	if err != nil {
		l.Fatal(err)
	}
	var ids []string
	for _, v := range out.Volumes {
		ids = append(ids, *v.VolumeId)
	}
	return ids
}

func TestFilters(t *testing.T) {
	l := start(t, ec2.Config{})
	i := l.instance(ec2.InstanceSpec{})
	a, b := l.create("Name=data-1", "own=yes"), l.create("Name=data*2")
	c, err := l.east.CreateVolume(t.Context(), &awsec2.CreateVolumeInput{AvailabilityZone: aws.String(east + "b"), Size: aws.Int32(2)})
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, l.attach(b, i, "/dev/sdf"), "")
	for _, tt := range []struct {
		name   string
		values []string
		want   []string
	}{
		{"tag:Name", []string{"data-1"}, []string{a}},
		{"tag:Name", []string{"data*"}, []string{a, b}},
		{"tag:Name", []string{`data\*2`}, []string{b}},
		{"tag:Name", []string{"data?1", "none"}, []string{a}},
		{"tag:name", []string{"data-1"}, nil},
		{"tag-key", []string{"own"}, []string{a}},
		{"tag-value", []string{"yes"}, []string{a}},
		{"attachment.instance-id", []string{i.ID}, []string{b}},
		{"attachment.status", []string{"attached"}, []string{b}},
		{"attachment.device", []string{"/dev/sdf"}, []string{b}},
		{"status", []string{"in-use"}, []string{b}},
		{"availability-zone", []string{east + "b"}, []string{*c.VolumeId}},
		{"volume-id", []string{a}, []string{a}},
		{"volume-type", []string{"gp2"}, []string{*c.VolumeId}},
		{"size", []string{"2"}, []string{*c.VolumeId}},
	} {
		slices.Sort(tt.want)
		if diff := cmp.Diff(tt.want, l.find(tt.name, tt.values...)); diff != "" {
			t.Errorf("%s %q (-want +got):\n%s", tt.name, tt.values, diff)
		}
	}
	_, err = l.east.DescribeVolumes(t.Context(), &awsec2.DescribeVolumesInput{Filters: []types.Filter{{Name: aws.String("colour"), Values: []string{"red"}}}})
	wantCode(t, err, "InvalidParameterValue")
	_, err = l.east.DescribeVolumes(t.Context(), &awsec2.DescribeVolumesInput{Filters: []types.Filter{{Name: aws.String("volume-id"), Values: make([]string, 201)}}})
	wantCode(t, err, "FilterLimitExceeded")
	if out, err := l.west.DescribeVolumes(t.Context(), &awsec2.DescribeVolumesInput{}); err != nil || len(out.Volumes) != 0 {
		t.Errorf("the other region has %v, %v", out, err)
	}
}

func TestPages(t *testing.T) {
	l := start(t, ec2.Config{})
	var want []string
	for range 13 {
		want = append(want, l.create())
	}
	slices.Sort(want)
	var got []string
	var sizes []int
	p := awsec2.NewDescribeVolumesPaginator(l.east, &awsec2.DescribeVolumesInput{MaxResults: aws.Int32(5)})
	for p.HasMorePages() {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(out.Volumes))
		for _, v := range out.Volumes {
			got = append(got, *v.VolumeId)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("all pages (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{5, 5, 3}, sizes); diff != "" {
		t.Errorf("sizes of pages (-want +got):\n%s", diff)
	}
	first, err := l.east.DescribeVolumes(t.Context(), &awsec2.DescribeVolumesInput{MaxResults: aws.Int32(5)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		in   awsec2.DescribeVolumesInput
		want string
	}{
		{awsec2.DescribeVolumesInput{MaxResults: aws.Int32(4)}, "InvalidParameterValue"},
		{awsec2.DescribeVolumesInput{MaxResults: aws.Int32(5), VolumeIds: want[:1]}, "InvalidParameterCombination"},
		{awsec2.DescribeVolumesInput{NextToken: aws.String("junk")}, "InvalidParameterValue"},
		{awsec2.DescribeVolumesInput{NextToken: first.NextToken, MaxResults: aws.Int32(6)}, ""},
		{awsec2.DescribeVolumesInput{NextToken: first.NextToken, Filters: []types.Filter{{Name: aws.String("status"), Values: []string{"available"}}}}, "InvalidParameterValue"},
		{awsec2.DescribeVolumesInput{VolumeIds: []string{want[0], "vol-0123456789abcdef0"}}, "InvalidVolume.NotFound"},
		{awsec2.DescribeVolumesInput{VolumeIds: []string{"vol-x"}}, "InvalidParameterValue"},
	} {
		_, err := l.east.DescribeVolumes(t.Context(), &tt.in)
		wantCode(t, err, tt.want)
	}
}

// TestLag asks in each way right after a change, and again when the cache that serves it
// has caught up.
func TestLag(t *testing.T) {
	l := start(t, ec2.Config{Lag: ec2.Lag{ID: time.Second, List: 2 * time.Second, Tags: 3 * time.Second, TagFilter: 5 * time.Second, StateFilter: 4 * time.Second}})
	i := l.instance(ec2.InstanceSpec{})
	id := l.create("Name=x")
	byID := func() error {
		_, err := l.east.DescribeVolumes(t.Context(), &awsec2.DescribeVolumesInput{VolumeIds: []string{id}})
		return err
	}
	wantCode(t, byID(), "InvalidVolume.NotFound")
	wantCode(t, l.attach(id, i, "/dev/sdf"), "InvalidVolume.NotFound")
	l.clock.Advance(time.Second)
	wantCode(t, byID(), "")
	if got := len(l.volume(id).Tags); got != 0 {
		t.Errorf("%d tags after 1 s", got)
	}
	if got := l.find(""); len(got) != 0 {
		t.Errorf("listed after 1 s: %v", got)
	}
	l.clock.Advance(time.Second)
	if got := l.find(""); len(got) != 1 {
		t.Errorf("listed after 2 s: %v", got)
	}
	l.clock.Advance(time.Second)
	if got := len(l.volume(id).Tags); got != 1 {
		t.Errorf("%d tags after 3 s", got)
	}
	if got := l.find("tag:Name", "x"); len(got) != 0 {
		t.Errorf("found by tag after 3 s: %v", got)
	}
	l.clock.Advance(2 * time.Second)
	if got := l.find("tag:Name", "x"); len(got) != 1 {
		t.Errorf("found by tag after 5 s: %v", got)
	}
	wantCode(t, l.attach(id, i, "/dev/sdf"), "")
	l.clock.Advance(3 * time.Second)
	l.wantState(id, "in-use attached")
	if got := l.find("status", "available"); len(got) != 1 {
		t.Errorf("the filter by status knows after 3 s: %v", got)
	}
	l.clock.Advance(time.Second)
	if got := l.find("status", "available"); len(got) != 0 {
		t.Errorf("the filter by status does not know after 4 s: %v", got)
	}
}

// TestJitter asks often after a change, and gets both answers.
func TestJitter(t *testing.T) {
	l := start(t, ec2.Config{Lag: ec2.Lag{List: 10 * time.Second, Jitter: true}})
	l.create()
	l.clock.Advance(5 * time.Second)
	seen := map[int]bool{}
	for range 40 {
		seen[len(l.find(""))] = true
	}
	if !seen[0] || !seen[1] {
		t.Errorf("answers: %v", seen)
	}
	l.clock.Advance(5 * time.Second)
	for range 40 {
		if len(l.find("")) != 1 {
			t.Fatal("not seen when all caches must know it")
		}
	}
}

func TestTags(t *testing.T) {
	l := start(t, ec2.Config{})
	id := l.create("a=1", "b=2")
	tags := func() (out []string) {
		p := awsec2.NewDescribeTagsPaginator(l.east, &awsec2.DescribeTagsInput{Filters: []types.Filter{{Name: aws.String("resource-id"), Values: []string{id}}}})
		for p.HasMorePages() {
			page, err := p.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range page.Tags {
				out = append(out, fmt.Sprintf("%s %s=%s", d.ResourceType, *d.Key, *d.Value))
			}
		}
		return out
	}
	create := func(resource string, list ...types.Tag) error {
		_, err := l.east.CreateTags(t.Context(), &awsec2.CreateTagsInput{Resources: []string{resource}, Tags: list})
		return err
	}
	remove := func(list ...types.Tag) {
		if _, err := l.east.DeleteTags(t.Context(), &awsec2.DeleteTagsInput{Resources: []string{id}, Tags: list}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, tags()); diff != "" {
			t.Errorf("tags (-want +got):\n%s", diff)
		}
	}
	wantCode(t, create(id, types.Tag{Key: aws.String("a"), Value: aws.String("3")}, types.Tag{Key: aws.String("c"), Value: aws.String("")}), "")
	want("volume a=3", "volume b=2", "volume c=")
	remove(types.Tag{Key: aws.String("a"), Value: aws.String("1")}, types.Tag{Key: aws.String("b")})
	want("volume a=3", "volume c=")
	wantCode(t, create("vol-0123456789abcdef0", types.Tag{Key: aws.String("a"), Value: aws.String("b")}), "InvalidVolume.NotFound")
	wantCode(t, create("thing-1", types.Tag{Key: aws.String("a"), Value: aws.String("b")}), "InvalidID")
	wantCode(t, create(id, types.Tag{Key: aws.String("aws:x"), Value: aws.String("b")}), "InvalidParameterValue")
	wantCode(t, create(id, types.Tag{Key: aws.String("x"), Value: aws.String(strings.Repeat("x", 256))}), "InvalidParameterValue")
	var many []types.Tag
	for n := range 50 {
		many = append(many, types.Tag{Key: aws.String(strconv.Itoa(n)), Value: aws.String("")})
	}
	wantCode(t, create(id, many...), "TagLimitExceeded")
	remove()
	want()
}

func TestPlaces(t *testing.T) {
	l := start(t, ec2.Config{})
	i := l.instance(ec2.InstanceSpec{Zone: east + "b", Type: "m5.large", Tags: map[string]string{"Name": "one"}})
	zones, err := l.east.DescribeAvailabilityZones(t.Context(), &awsec2.DescribeAvailabilityZonesInput{})
	if err != nil || len(zones.AvailabilityZones) != 3 || *zones.AvailabilityZones[1].ZoneName != east+"b" || zones.AvailabilityZones[1].State != "available" {
		t.Errorf("zones: %+v, %v", zones, err)
	}
	_, err = l.east.DescribeAvailabilityZones(t.Context(), &awsec2.DescribeAvailabilityZonesInput{ZoneNames: []string{west + "a"}})
	wantCode(t, err, "InvalidParameterValue")
	regions, err := l.east.DescribeRegions(t.Context(), &awsec2.DescribeRegionsInput{RegionNames: []string{west}})
	if err != nil || len(regions.Regions) != 1 || *regions.Regions[0].Endpoint != "ec2.eu-west-1.amazonaws.com" {
		t.Errorf("regions: %+v, %v", regions, err)
	}
	id, err := l.east.CreateVolume(t.Context(), &awsec2.CreateVolumeInput{AvailabilityZone: aws.String(east + "b"), Size: aws.Int32(1)})
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, l.attach(*id.VolumeId, i, "/dev/sdf"), "")
	got, err := l.east.DescribeInstances(t.Context(), &awsec2.DescribeInstancesInput{Filters: []types.Filter{{Name: aws.String("tag:Name"), Values: []string{"one"}}}})
	if err != nil || len(got.Reservations) != 1 {
		t.Fatalf("instances: %+v, %v", got, err)
	}
	in := got.Reservations[0].Instances[0]
	if *in.InstanceId != i.ID || in.InstanceType != types.InstanceTypeM5Large || in.State.Name != "running" || *in.Placement.AvailabilityZone != east+"b" {
		t.Errorf("instance: %+v", in)
	}
	if len(in.BlockDeviceMappings) != 1 || *in.BlockDeviceMappings[0].Ebs.VolumeId != *id.VolumeId || *in.BlockDeviceMappings[0].DeviceName != "/dev/sdf" {
		t.Errorf("its devices: %+v", in.BlockDeviceMappings)
	}
	i.Impair(true)
	status, err := l.east.DescribeInstanceStatus(t.Context(), &awsec2.DescribeInstanceStatusInput{InstanceIds: []string{i.ID}})
	if err != nil || status.InstanceStatuses[0].SystemStatus.Status != types.SummaryStatusImpaired || status.InstanceStatuses[0].InstanceState.Name != "running" {
		t.Errorf("status: %+v, %v", status, err)
	}
	if _, err := l.east.StopInstances(t.Context(), &awsec2.StopInstancesInput{InstanceIds: []string{i.ID}}); err != nil {
		t.Fatal(err)
	}
	status, err = l.east.DescribeInstanceStatus(t.Context(), &awsec2.DescribeInstanceStatusInput{})
	if err != nil || len(status.InstanceStatuses) != 0 {
		t.Errorf("status of those that run: %+v, %v", status, err)
	}
}
