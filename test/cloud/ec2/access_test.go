package ec2_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"

	"github.com/remora-plugins/remora/test/cloud/ec2"
)

func TestKeys(t *testing.T) {
	l := start(t, ec2.Config{Users: []ec2.User{{AccessKey: "AKIAOTHER", SecretKey: "other", Deny: []string{"DescribeVolumes"}}}})
	for _, tt := range []struct{ name, region, key, secret, want string }{
		{"right", east, accessKey, secretKey, ""},
		{"wrong secret", east, accessKey, secretKey + "x", "AuthFailure"},
		{"unknown key", east, "AKIANONE", secretKey, "AuthFailure"},
		{"unknown region", "mars-1", accessKey, secretKey, "AuthFailure"},
		{"denied", east, "AKIAOTHER", "other", "UnauthorizedOperation"},
	} {
		_, err := l.client(tt.region, tt.key, tt.secret).DescribeVolumes(t.Context(), &awsec2.DescribeVolumesInput{})
		wantCode(t, err, tt.want)
		if t.Failed() {
			t.Fatal(tt.name)
		}
	}
	c := awsec2.New(awsec2.Options{
		Region: east, BaseEndpoint: aws.String(l.url), Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, "a token"),
	})
	_, err := c.DescribeVolumes(t.Context(), &awsec2.DescribeVolumesInput{})
	wantCode(t, err, "AuthFailure")

	// What was signed cannot be changed on the way.
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(strings.Replace(string(body), "DescribeVolumes", "DescribeRegions", 1)))
		r.Host = strings.TrimPrefix(l.url, "http://")
		l.cloud.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	c = awsec2.New(awsec2.Options{
		Region: east, BaseEndpoint: aws.String(proxy.URL), Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
	})
	_, err = c.DescribeVolumes(t.Context(), &awsec2.DescribeVolumesInput{})
	wantCode(t, err, "AuthFailure")
	resp, err := http.PostForm(l.url, map[string][]string{"Action": {"DescribeVolumes"}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("unsigned: %s", resp.Status)
	}
}

// TestThrottle empties buckets. Each action has its own, and they fill again.
func TestThrottle(t *testing.T) {
	l := start(t, ec2.Config{Limits: ec2.Limits{Describe: ec2.Bucket{Size: 3, Refill: 1}, DescribeAll: ec2.Bucket{Size: 1, Refill: 1}}})
	paged := func() error {
		_, err := l.east.DescribeVolumes(t.Context(), &awsec2.DescribeVolumesInput{MaxResults: aws.Int32(5)})
		return err
	}
	all := func() error {
		_, err := l.east.DescribeVolumes(t.Context(), &awsec2.DescribeVolumesInput{})
		return err
	}
	for range 3 {
		wantCode(t, paged(), "")
	}
	wantCode(t, paged(), "RequestLimitExceeded")
	wantCode(t, all(), "")
	wantCode(t, all(), "RequestLimitExceeded")
	_, err := l.east.DescribeSnapshots(t.Context(), &awsec2.DescribeSnapshotsInput{MaxResults: aws.Int32(5)})
	wantCode(t, err, "")
	_, err = l.west.DescribeVolumes(t.Context(), &awsec2.DescribeVolumesInput{})
	wantCode(t, err, "")
	l.clock.Advance(2 * time.Second)
	wantCode(t, paged(), "")
	wantCode(t, paged(), "")
	wantCode(t, paged(), "RequestLimitExceeded")
	if got, want := l.cloud.Counts()["DescribeVolumes"], (ec2.Count{Calls: 10, Throttled: 3}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	l.cloud.ResetCounts()
	if got := l.cloud.Counts(); len(got) != 0 {
		t.Errorf("after a reset: %v", got)
	}
}

// TestFaults fails calls before and after their effect, and has the SDK's own retries get
// over both: the token that it makes for each call keeps it from creating twice.
func TestFaults(t *testing.T) {
	l := start(t, ec2.Config{})
	// The SDK writes the token it makes into what it is given, so each call has its own.
	in := func() *awsec2.CreateVolumeInput {
		return &awsec2.CreateVolumeInput{AvailabilityZone: aws.String(east + "a"), Size: aws.Int32(1)}
	}
	l.cloud.Break(ec2.Fault{Kind: ec2.FailBefore, Action: "CreateVolume", Count: 1})
	_, err := l.east.CreateVolume(t.Context(), in())
	wantCode(t, err, "InternalError")
	if got := l.find(""); len(got) != 0 {
		t.Errorf("it was created before it failed: %v", got)
	}
	l.cloud.Break(ec2.Fault{Kind: ec2.FailAfter, Action: "CreateVolume", Count: 1})
	_, err = l.east.CreateVolume(t.Context(), in())
	if api := smithy.APIError(nil); err == nil || errors.As(err, &api) {
		t.Errorf("a lost answer is %v", err)
	}
	if got := l.find(""); len(got) != 1 {
		t.Errorf("it was not created before the answer was lost: %v", got)
	}
	again := awsec2.New(l.east.Options(), func(o *awsec2.Options) {
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.Backoff = retry.NewExponentialJitterBackoff(time.Millisecond) })
	})
	l.cloud.Break(ec2.Fault{Kind: ec2.Throttle, Count: 1})
	l.cloud.Break(ec2.Fault{Kind: ec2.FailAfter, Count: 1})
	if _, err := again.CreateVolume(t.Context(), in()); err != nil {
		t.Errorf("with retries: %v", err)
	}
	if got := l.find(""); len(got) != 2 {
		t.Errorf("with retries there are %v", got)
	}
	l.cloud.Break(ec2.Fault{Kind: ec2.Refuse, Code: "InsufficientVolumeCapacity", Message: "There is not enough capacity.", Count: 1})
	_, err = l.east.CreateVolume(t.Context(), in())
	wantCode(t, err, "InsufficientVolumeCapacity")
	if got := l.find(""); len(got) != 2 {
		t.Errorf("refused, and yet there are %v", got)
	}
	l.cloud.Break(ec2.Fault{Kind: ec2.FailBefore})
	_, err = l.east.DescribeRegions(t.Context(), &awsec2.DescribeRegionsInput{})
	wantCode(t, err, "InternalError")
	l.cloud.Heal()
	_, err = l.east.DescribeRegions(t.Context(), &awsec2.DescribeRegionsInput{})
	wantCode(t, err, "")
}

// TestMetadata asks with the SDK's own client, and calls the API with what it got.
func TestMetadata(t *testing.T) {
	l := start(t, ec2.Config{})
	i := l.instance(ec2.InstanceSpec{Zone: east + "c", Type: "c5.large", Role: "storage", RoleTTL: 2 * time.Second, RoleDeny: []string{"DeleteVolume"}})
	s := httptest.NewServer(i.Metadata())
	defer s.Close()
	client := imds.New(imds.Options{Endpoint: s.URL, Retryer: aws.NopRetryer{}, EnableFallback: aws.FalseTernary})
	for path, want := range map[string]string{
		"instance-id": i.ID, "instance-type": "c5.large", "placement/availability-zone": east + "c", "placement/region": east,
		"iam/security-credentials/": "storage",
	} {
		out, err := client.GetMetadata(t.Context(), &imds.GetMetadataInput{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(out.Content); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v, want %q", path, got, err, want)
		}
	}
	doc, err := client.GetInstanceIdentityDocument(t.Context(), &imds.GetInstanceIdentityDocumentInput{})
	if err != nil || doc.InstanceID != i.ID || doc.Region != east || doc.AccountID != "123456789012" {
		t.Errorf("document: %+v, %v", doc, err)
	}
	if region, err := client.GetRegion(t.Context(), nil); err != nil || region.Region != east {
		t.Errorf("region: %+v, %v", region, err)
	}
	for _, tt := range []struct {
		header string
		want   int
	}{{"", http.StatusUnauthorized}, {"made up", http.StatusUnauthorized}} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/latest/meta-data/instance-id", nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.header != "" {
			req.Header.Set("X-aws-ec2-metadata-token", tt.header)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("with the token %q: %s", tt.header, resp.Status)
		}
	}

	provider := ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = client })
	creds, err := provider.Retrieve(t.Context())
	if err != nil || !creds.CanExpire || !strings.HasPrefix(creds.AccessKeyID, "ASIA") {
		t.Fatalf("credentials: %+v, %v", creds, err)
	}
	role := awsec2.New(awsec2.Options{
		Region: east, BaseEndpoint: aws.String(l.url), Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(creds.AccessKeyID, creds.SecretAccessKey, creds.SessionToken),
	})
	_, err = role.DescribeVolumes(t.Context(), &awsec2.DescribeVolumesInput{})
	wantCode(t, err, "")
	_, err = role.DeleteVolume(t.Context(), &awsec2.DeleteVolumeInput{VolumeId: aws.String("vol-0123456789abcdef0")})
	wantCode(t, err, "UnauthorizedOperation")
	for end := time.Now().Add(10 * time.Second); err == nil || time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if _, err = role.DescribeVolumes(t.Context(), &awsec2.DescribeVolumesInput{}); err != nil {
			break
		}
	}
	wantCode(t, err, "RequestExpired")
	next, err := provider.Retrieve(t.Context())
	if err != nil || next.AccessKeyID == creds.AccessKeyID {
		t.Errorf("the next credentials: %v", err)
	}
}

// TestNoRole has the metadata of an instance without a role, and one that takes version 1.
func TestNoRole(t *testing.T) {
	l := start(t, ec2.Config{})
	i := l.instance(ec2.InstanceSpec{MetadataV1: true})
	s := httptest.NewServer(i.Metadata())
	defer s.Close()
	for path, want := range map[string]int{"instance-id": http.StatusOK, "iam/security-credentials/": http.StatusNotFound, "colour": http.StatusNotFound} {
		resp, err := http.Get(s.URL + "/latest/meta-data/" + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}
