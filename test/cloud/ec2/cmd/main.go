// The command cmd serves a fake of EC2 on the loopback until its standard input ends, so
// that it goes with the test that started it. Its first line of output is JSON: the address
// of the API, that of what package ec2 calls Admin, and the instances it was told to start.
//
//	go run ./test/cloud/ec2/cmd -dir /tmp/cloud -key AKIATEST -secret secret -instance us-east-1a:t3.micro
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/remora-plugins/remora/test/cloud/ec2"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "ec2:", err)
		os.Exit(1)
	}
}

// running is the first line of output.
type running struct {
	Endpoint  string
	Admin     string
	Instances []ec2.Started
}

func run(args []string, in io.Reader, out io.Writer) (err error) {
	flags := flag.NewFlagSet("ec2", flag.ContinueOnError)
	dir := flags.String("dir", "", "folder for volumes and machines")
	key := flags.String("key", "AKIATEST", "access key")
	secret := flags.String("secret", "secret", "secret key")
	role := flags.String("role", "", "role that the instances have")
	delay := flags.Duration("delay", 200*time.Millisecond, "how long each change of a state takes")
	lag := flags.Duration("lag", 0, "how far answers are behind")
	seed := flags.Uint64("seed", 1, "seed of ids and names")
	var specs []ec2.InstanceSpec
	flags.Func("instance", "ZONE:TYPE of an instance to start, may be repeated", func(s string) error {
		zone, kind, ok := strings.Cut(s, ":")
		if !ok || len(zone) < 2 {
			return errors.New("want ZONE:TYPE")
		}
		specs = append(specs, ec2.InstanceSpec{Region: zone[:len(zone)-1], Zone: zone, Type: kind})
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	d, l := *delay, *lag
	cloud, err := ec2.New(ec2.Config{
		Dir: *dir, Users: []ec2.User{{AccessKey: *key, SecretKey: *secret}}, Seed: *seed,
		Delays: ec2.Delays{Create: d, Delete: d, Attach: d, Device: d / 4, Detach: d, Busy: d, Modify: d, Optimize: d, Snapshot: d, Copy: d, Terminate: d, Release: d},
		Lag:    ec2.Lag{ID: l, List: l, Tags: l, TagFilter: 2 * l, StateFilter: l, Jitter: true},
	})
	if err != nil {
		return err
	}
	admin := ec2.NewAdmin(cloud)
	api, control := httptest.NewServer(cloud), httptest.NewServer(admin)
	defer api.Close()
	defer control.Close()
	defer admin.Close()
	defer func() { err = errors.Join(err, cloud.Close()) }() // first, as it ends the calls that hang
	r := running{}
	for _, spec := range specs {
		spec.Role = *role
		s, err := admin.Start(spec)
		if err != nil {
			return err
		}
		r.Instances = append(r.Instances, s)
	}
	r.Endpoint, r.Admin = api.URL, control.URL
	if err := json.NewEncoder(out).Encode(r); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}
