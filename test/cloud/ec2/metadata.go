package ec2

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

const (
	ttlHeader   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	tokenHeader = "X-Aws-Ec2-Metadata-Token"
	maxTTL      = 21600
	metadata    = "/latest/meta-data/"
)

// Metadata is the instance's metadata service, version 2: what every machine has at
// 169.254.169.254. Time there is real time, whatever the cloud's clock shows.
func (i *Instance) Metadata() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /latest/api/token", i.serveToken)
	text := func(path string, value func() string) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			if !i.allowed(r) {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			v := value()
			if v == "" {
				http.NotFound(w, r)
				return
			}
			_, _ = w.Write([]byte(v))
		})
	}
	text(metadata+"instance-id", func() string { return i.ID })
	text(metadata+"instance-type", func() string { return i.Type })
	text(metadata+"placement/availability-zone", func() string { return i.Zone })
	text(metadata+"placement/availability-zone-id", func() string { return zoneID(i.Zone) })
	text(metadata+"placement/region", func() string { return i.Region })
	text(metadata+"iam/security-credentials/{$}", func() string { return i.Role })
	if i.Role != "" {
		text(metadata+"iam/security-credentials/"+i.Role, i.credentials)
	}
	text("/latest/dynamic/instance-identity/document", i.document)
	return mux
}

func (i *Instance) serveToken(w http.ResponseWriter, r *http.Request) {
	ttl, err := strconv.Atoi(r.Header.Get(ttlHeader))
	if err != nil || ttl < 1 || ttl > maxTTL || r.Header.Get("X-Forwarded-For") != "" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	i.cloud.mu.Lock()
	token := fmt.Sprintf("AQAE%016x%016x==", i.cloud.rand.Uint64(), i.cloud.rand.Uint64())
	i.tokens[token] = time.Now().Add(time.Duration(ttl) * time.Second)
	i.cloud.mu.Unlock()
	w.Header().Set(ttlHeader, strconv.Itoa(ttl))
	_, _ = w.Write([]byte(token))
}

// allowed tells whether a caller has a token that is still good.
func (i *Instance) allowed(r *http.Request) bool {
	i.cloud.mu.Lock()
	defer i.cloud.mu.Unlock()
	token := r.Header.Get(tokenHeader)
	if token == "" {
		return i.MetadataV1
	}
	return time.Now().Before(i.tokens[token])
}

// credentials are those of the role. There are new ones five minutes before the end of the
// old, or when half of a shorter time is over, and the API takes both.
func (i *Instance) credentials() string {
	c := i.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Until(i.secret.expires) < min(5*time.Minute, i.RoleTTL/2) {
		secret := make([]byte, 20)
		for n := range secret {
			secret[n] = byte(c.rand.Uint32())
		}
		i.secret = User{
			AccessKey: fmt.Sprintf("ASIA%016X", c.rand.Uint64()), SecretKey: hex.EncodeToString(secret), Deny: i.RoleDeny,
			token: fmt.Sprintf("IQoJ%016x", c.rand.Uint64()), expires: time.Now().Add(i.RoleTTL),
		}
		c.users = append(c.users, i.secret)
	}
	return asJSON(map[string]string{
		"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": time.Now().UTC().Format(time.RFC3339),
		"AccessKeyId": i.secret.AccessKey, "SecretAccessKey": i.secret.SecretKey, "Token": i.secret.token,
		"Expiration": i.secret.expires.UTC().Format(time.RFC3339),
	})
}

func (i *Instance) document() string {
	return asJSON(map[string]string{
		"accountId": i.cloud.conf.Account, "architecture": "x86_64", "availabilityZone": i.Zone, "instanceId": i.ID,
		"instanceType": i.Type, "region": i.Region, "version": "2017-09-30", "pendingTime": stamp(i.launched),
	})
}

func asJSON(v map[string]string) string {
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // strings can be written
	}
	return string(out)
}
