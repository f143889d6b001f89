package ec2

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// request is one call, after it was let in.
type request struct {
	params
	cloud  *Cloud
	action string
	user   User
	region *region
	stuck  bool // what it begins is not to end
}

// now is the cloud's time.
func (r *request) now() time.Time { return r.cloud.clock.Now() }

// action is a call that there is.
type action struct {
	params string // the names of those it has
	do     func(*request) (any, error)
}

// actions returns all calls that the fake knows.
func actions() map[string]action {
	return map[string]action{
		"CreateVolume":  {"AvailabilityZone ClientToken Encrypted Iops KmsKeyId MultiAttachEnabled Size SnapshotId TagSpecification Throughput VolumeType", createVolume},
		"DeleteVolume":  {"VolumeId", deleteVolume},
		"AttachVolume":  {"Device InstanceId VolumeId", attachVolume},
		"DetachVolume":  {"Device Force InstanceId VolumeId", detachVolume},
		"ModifyVolume":  {"Iops MultiAttachEnabled Size Throughput VolumeId VolumeType", modifyVolume},
		"CreateTags":    {"ResourceId Tag", createTags},
		"DeleteTags":    {"ResourceId Tag", deleteTags},
		"DescribeTags":  {"Filter MaxResults NextToken", describeTags},
		"CopySnapshot":  {"Description DestinationRegion Encrypted KmsKeyId PresignedUrl SourceRegion SourceSnapshotId TagSpecification", copySnapshot},
		"StopInstances": {"Force InstanceId", stopInstances},

		"DescribeVolumes":              {"Filter MaxResults NextToken VolumeId", describeVolumes},
		"DescribeVolumesModifications": {"Filter MaxResults NextToken VolumeId", describeModifications},
		"CreateSnapshot":               {"Description TagSpecification VolumeId", createSnapshot},
		"CreateSnapshots":              {"CopyTagsFromSource Description InstanceSpecification TagSpecification", createSnapshots},
		"DeleteSnapshot":               {"SnapshotId", deleteSnapshot},
		"DescribeSnapshots":            {"Filter MaxResults NextToken Owner SnapshotId", describeSnapshots},
		"DescribeInstances":            {"Filter InstanceId MaxResults NextToken", describeInstances},
		"DescribeInstanceStatus":       {"Filter IncludeAllInstances InstanceId MaxResults NextToken", describeInstanceStatus},
		"StartInstances":               {"InstanceId", startInstances},
		"TerminateInstances":           {"InstanceId", terminateInstances},
		"DescribeAvailabilityZones":    {"AllAvailabilityZones Filter ZoneName", describeZones},
		"DescribeRegions":              {"AllRegions Filter RegionName", describeRegions},
	}
}

const (
	namespace  = "http://ec2.amazonaws.com/doc/2016-11-15/"
	maxRequest = 1 << 20
)

// ServeHTTP answers a call of the Query API.
func (c *Cloud) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxRequest))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		form = url.Values{}
	}
	maps.Copy(form, req.URL.Query())
	r := &request{params: params(form), cloud: c, action: form.Get("Action")}
	fault := c.fault(r.action)
	r.stuck = fault.Kind == Stuck
	var out any
	switch fault.Kind {
	case Hang:
		err = c.hang(fault.For)
	case FailBefore:
		err = failWith(http.StatusInternalServerError, "InternalError", "An internal error has occurred")
	case Throttle:
		err = throttled()
	case Refuse:
		err = fail(fault.Code, "%s", fault.Message)
	}
	if err == nil {
		out, err = r.run(req, body)
	}
	var fails *apiError
	if err != nil && !errors.As(err, &fails) {
		fails = failWith(http.StatusInternalServerError, "InternalError", "%v", err)
	}
	c.mu.Lock()
	c.count(r.action, fails)
	id := fmt.Sprintf("%08x-0000-4000-8000-%012x", c.rand.Uint32(), c.rand.Uint64N(1<<48))
	c.mu.Unlock()
	if fault.Kind == FailAfter {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	if fails != nil {
		w.WriteHeader(fails.status)
		_, _ = w.Write(errorBody(fails, id))
		return
	}
	_, _ = w.Write(answerBody(r.action, id, out))
}

// run lets a call in, or not, and does what it asks for.
func (r *request) run(req *http.Request, body []byte) (any, error) {
	c := r.cloud
	user, name, err := c.authenticate(req, body)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, failWith(http.StatusServiceUnavailable, "Unavailable", "The service is unavailable. Please try again shortly.")
	}
	r.user, r.region = user, c.regions[name]
	if r.region == nil {
		return nil, errAuth
	}
	do, ok := actions()[r.action]
	if !ok {
		return nil, fail("InvalidAction", "The action %s is not valid for this web service.", r.action)
	}
	if err := c.take(r); err != nil {
		return nil, err
	}
	if err := r.known(do.params); err != nil {
		return nil, err
	}
	if slices.Contains(user.Deny, r.action) {
		return nil, failWith(http.StatusForbidden, "UnauthorizedOperation", "You are not authorized to perform this operation.")
	}
	if dry, err := r.yes("DryRun"); err != nil || dry {
		if err == nil {
			err = failWith(http.StatusPreconditionFailed, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
		}
		return nil, err
	}
	return do.do(r)
}

// done is the answer of calls that have nothing to say.
type done struct {
	Return bool `xml:"return"`
}

func errorBody(e *apiError, id string) []byte {
	type inner struct {
		Code    string
		Message string
	}
	return marshal(struct {
		XMLName   xml.Name `xml:"Response"`
		Error     inner    `xml:"Errors>Error"`
		RequestID string
	}{Error: inner{e.code, e.message}, RequestID: id})
}

// answerBody puts the fields of an answer into the element that is named for the action.
func answerBody(action, id string, out any) []byte {
	var fields bytes.Buffer
	e := xml.NewEncoder(&fields)
	if err := errors.Join(e.EncodeElement(out, xml.StartElement{Name: xml.Name{Local: "x"}}), e.Close()); err != nil {
		panic(err) // a type of ours that cannot be written
	}
	return marshal(struct {
		XMLName xml.Name
		Fields  []byte `xml:",innerxml"`
	}{
		XMLName: xml.Name{Space: namespace, Local: action + "Response"},
		Fields:  fmt.Appendf(nil, "<requestId>%s</requestId>%s", id, strings.TrimSuffix(strings.TrimPrefix(fields.String(), "<x>"), "</x>")),
	})
}

func marshal(v any) []byte {
	out, err := xml.Marshal(v)
	if err != nil {
		panic(err)
	}
	return append([]byte(xml.Header), out...)
}
