package catalog

import (
	"io/fs"
	"os"
)

// Owner is the options that say whose the data directory of a volume is. It is embedded in the options of drivers that
// make one. What is nil was not given.
type Owner struct {
	UID  *uint32      `opt:"uid" help:"owner of the data directory, set when that is made"`
	GID  *uint32      `opt:"gid" help:"group of the data directory, set when that is made"`
	Mode *fs.FileMode `opt:"mode" help:"mode of the data directory, set when that is made; 0755 without it"`
}

// Given tells whether there is anything to apply.
func (o Owner) Given() bool { return o.UID != nil || o.GID != nil || o.Mode != nil }

// Apply sets on an open directory what was given, and leaves the rest as it is.
func (o Owner) Apply(data *os.File) error {
	if o.UID != nil || o.GID != nil {
		if err := data.Chown(numeric(o.UID), numeric(o.GID)); err != nil {
			return err
		}
	}
	if o.Mode != nil {
		return data.Chmod(*o.Mode)
	}
	return nil
}

// numeric is an id as chown(2) takes it: -1 leaves what there is.
func numeric(id *uint32) int {
	if id == nil {
		return -1
	}
	return int(*id)
}
