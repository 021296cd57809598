// append measures Tessera's POSIX driver: append FOLDER ENTRIES IN_FLIGHT
//
// Entries of 300 bytes go into a new log in FOLDER, each by a caller that waits for its index before it adds the next one. Tessera answers
// when the entry's bundle, the tiles above it and the state of the tree are written and synced. Prints the seconds that all of it took.
package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"
)

const (
	size      = 300
	batchSize = 256
	batchAge  = 20 * time.Millisecond
)

func main() {
	klog.InitFlags(nil)
	flag.Parse()
	if err := run(context.Background(), flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "append: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: append FOLDER ENTRIES IN_FLIGHT")
	}
	entries, err := strconv.ParseUint(args[1], 10, 32)
	if err != nil {
		return fmt.Errorf("ENTRIES: %w", err)
	}
	inFlight, err := strconv.ParseUint(args[2], 10, 16)
	if err != nil || inFlight == 0 || entries%inFlight != 0 {
		return fmt.Errorf("IN_FLIGHT must divide ENTRIES")
	}
	appender, shutdown, err := open(ctx, args[0])
	if err != nil {
		return err
	}

	begun := time.Now()
	var callers errgroup.Group
	each := entries / inFlight
	for caller := range inFlight {
		callers.Go(func() error {
			for n := caller * each; n < (caller+1)*each; n++ {
				if _, err := appender.Add(ctx, tessera.NewEntry(entry(n)))(); err != nil {
					return fmt.Errorf("entry %d: %w", n, err)
				}
			}
			return nil
		})
	}
	if err := callers.Wait(); err != nil {
		return err
	}
	fmt.Println(time.Since(begun).Seconds())
	// shows that the log has them all: it waits until a checkpoint over the last entry is there
	if err := shutdown(ctx); err != nil {
		return fmt.Errorf("shutting down: %w", err)
	}
	return nil
}

func open(ctx context.Context, folder string) (*tessera.Appender, func(context.Context) error, error) {
	secret, _, err := note.GenerateKey(nil, "tsujiban.dev/bench")
	if err != nil {
		return nil, nil, err
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		return nil, nil, err
	}
	driver, err := posix.New(ctx, posix.Config{Path: folder})
	if err != nil {
		return nil, nil, err
	}
	options := tessera.NewAppendOptions().WithCheckpointSigner(signer).WithBatching(batchSize, batchAge)
	appender, shutdown, _, err := tessera.NewAppender(ctx, driver, options)
	return appender, shutdown, err
}

// entry is the n-th one: no two are the same.
func entry(n uint64) []byte {
	data := make([]byte, size)
	binary.BigEndian.PutUint64(data, n)
	return data
}
