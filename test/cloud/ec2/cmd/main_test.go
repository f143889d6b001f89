package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/cloud/ec2"
)

// TestMain is also the command.
func TestMain(m *testing.M) {
	if os.Getenv("EC2_TEST_COMMAND") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), "EC2_TEST_COMMAND=1")
	return cmd
}

// call asks the control address for something, and reads its answer into out.
func call(t *testing.T, method, url, body string, want int, out any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		t.Fatalf("%s %s: %s, want %d", method, url, resp.Status, want)
	}
	if out != nil {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			t.Fatal(err)
		}
	}
}

// TestProcess attaches a volume in another process, makes it fail and count, and ends it.
func TestProcess(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	dir := t.TempDir()
	cmd := command(t, "-dir", dir, "-delay", "20ms", "-lag", "5ms", "-role", "storage", "-instance", "us-east-1a:t3.micro")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var r running
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	if err != nil || len(r.Instances) != 1 {
		t.Fatalf("%s: %v", line, err)
	}
	client := awsec2.New(awsec2.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(r.Endpoint), Credentials: credentials.NewStaticCredentialsProvider("AKIATEST", "secret", ""),
	})
	v, err := client.CreateVolume(t.Context(), &awsec2.CreateVolumeInput{AvailabilityZone: aws.String("us-east-1a"), Size: aws.Int32(1)})
	if err != nil {
		t.Fatal(err)
	}
	wait := awsec2.NewVolumeAvailableWaiter(client, func(o *awsec2.VolumeAvailableWaiterOptions) {
		o.MinDelay, o.MaxDelay = 10*time.Millisecond, 20*time.Millisecond
	})
	if err := wait.Wait(t.Context(), &awsec2.DescribeVolumesInput{Filters: []types.Filter{{Name: aws.String("volume-id"), Values: []string{*v.VolumeId}}}}, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	i := r.Instances[0]
	if _, err := client.AttachVolume(t.Context(), &awsec2.AttachVolumeInput{VolumeId: v.VolumeId, InstanceId: aws.String(i.ID), Device: aws.String("/dev/sdf")}); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(i.Dev, "disk/by-id/nvme-Amazon_Elastic_Block_Store_"+strings.Replace(*v.VolumeId, "-", "", 1))
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(link); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not there", link)
		}
	}

	call(t, "DELETE", r.Admin+"/counts", "", http.StatusOK, nil)
	call(t, "POST", r.Admin+"/faults", `{"Kind": "throttle", "Action": "DescribeRegions", "Count": 1}`, http.StatusOK, nil)
	if _, err := client.DescribeRegions(t.Context(), &awsec2.DescribeRegionsInput{}); err != nil {
		t.Errorf("with the retries of the SDK: %v", err)
	}
	var counts map[string]ec2.Count
	call(t, "GET", r.Admin+"/counts", "", http.StatusOK, &counts)
	if got, want := counts["DescribeRegions"], (ec2.Count{Calls: 2, Throttled: 1}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	call(t, "POST", r.Admin+"/faults", `{"Kind": "hang", "Action": "DescribeTags", "Seconds": 0.2, "Count": 1}`, http.StatusOK, nil)
	begin := time.Now()
	if _, err := client.DescribeTags(t.Context(), &awsec2.DescribeTagsInput{}); err != nil || time.Since(begin) < 200*time.Millisecond {
		t.Errorf("a call that hangs took %v, %v", time.Since(begin), err)
	}
	call(t, "POST", r.Admin+"/faults", `{"Colour": "red"}`, http.StatusBadRequest, nil)
	call(t, "POST", r.Admin+"/faults", `{"Kind": "explode"}`, http.StatusBadRequest, nil)
	call(t, "POST", r.Admin+"/faults", `{"Kind": "hang", "Seconds": 3600}`, http.StatusOK, nil)
	call(t, "DELETE", r.Admin+"/faults", "", http.StatusOK, nil)
	call(t, "POST", r.Admin+"/instances", `{"Zone": "mars-1a"}`, http.StatusBadRequest, nil)
	var second ec2.Started
	call(t, "POST", r.Admin+"/instances", `{"Zone": "us-east-1b"}`, http.StatusOK, &second)
	if second.Zone != "us-east-1b" || second.ID == i.ID {
		t.Errorf("the second instance is %+v", second)
	}

	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	backed, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, sys := range backed {
		if text, err := os.ReadFile(sys); err == nil && strings.HasPrefix(string(text), dir) {
			t.Errorf("%s is left on a loop device", text)
		}
	}
}

func TestWrongFlags(t *testing.T) {
	for _, args := range [][]string{{}, {"-dir", t.TempDir(), "-instance", "x"}, {"-dir", t.TempDir(), "-instance", "mars-1a:t3.micro"}} {
		cmd := command(t, args...)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "ec2:") {
			t.Errorf("%q: %v, %s", args, err, out)
		}
	}
}
