// fsck has Tessera check a log as C2SP tlog-tiles lays it out: fsck URL VERIFIER_KEY
//
// URL is https://... or file://FOLDER/; the key's name is the log's origin. Every entry bundle and every tile is read and compared with what
// the checkpoint says. Tessera's own command shows what it found and then ends well in any case; this one fails for a log that is not sound.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"k8s.io/klog/v2"
)

func main() {
	klog.InitFlags(nil)
	flag.Parse()
	if err := run(context.Background(), flag.Args()); err != nil {
		klog.Flush()
		fmt.Fprintf(os.Stderr, "fsck: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: fsck URL VERIFIER_KEY")
	}
	key, err := note.NewVerifier(args[1])
	if err != nil {
		return fmt.Errorf("the verifier key: %w", err)
	}
	source, err := fetcher(args[0])
	if err != nil {
		return err
	}
	return fsck.New(key.Name(), key, source, leafHashes, fsck.Opts{N: 2}).Check(ctx)
}

func fetcher(from string) (fsck.Fetcher, error) {
	place, err := url.Parse(from)
	if err != nil {
		return nil, err
	}
	switch place.Scheme {
	case "file":
		return client.FileFetcher{Root: place.Path}, nil
	case "http", "https":
		return client.NewHTTPFetcher(place, nil)
	default:
		return nil, fmt.Errorf("%q is no URL of a log: use https:// or file://", from)
	}
}

// leafHashes are the hashes of a bundle's entries (RFC 6962).
func leafHashes(bundle []byte) ([][]byte, error) {
	var entries api.EntryBundle
	if err := entries.UnmarshalText(bundle); err != nil {
		return nil, fmt.Errorf("an entry bundle: %w", err)
	}
	hashes := make([][]byte, 0, len(entries.Entries))
	for _, entry := range entries.Entries {
		hashes = append(hashes, rfc6962.DefaultHasher.HashLeaf(entry))
	}
	return hashes, nil
}
