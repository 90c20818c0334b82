// The other side of row 11: Watermill on SQLite (every commit synced) and on Go channels.
//
// Publishes batches for a while, as several publishers, while one subscriber acknowledges message by message. Waits until
// all are acknowledged, and prints one JSON object: {"events_per_second": …, "synchronous": …}.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-sqlite/wmsqlitezombiezen"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

const topic = "bench"

type load struct {
	seconds    float64
	publishers int
	batch      int
	bytes      int
	backlog    int
}

type result struct {
	Rate        float64 `json:"events_per_second"`
	Events      int64   `json:"events"`
	Synchronous int     `json:"synchronous"`
	Journal     string  `json:"journal"`
}

func main() {
	var of load
	on := flag.String("on", "sqlite", "sqlite or channel")
	directory := flag.String("dir", ".", "where the database is made")
	flag.Float64Var(&of.seconds, "seconds", 2, "how long messages are published")
	flag.IntVar(&of.publishers, "publishers", 1, "publishers at a time")
	flag.IntVar(&of.batch, "batch", 100, "messages of one call of Publish")
	flag.IntVar(&of.bytes, "bytes", 256, "bytes of a message's payload")
	flag.IntVar(&of.backlog, "backlog", 32768, "most messages published and not acknowledged")
	flag.Parse()
	measured, err := run(*on, *directory, of)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(measured)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(on, directory string, of load) (result, error) {
	switch on {
	case "channel":
		channel := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: int64(of.batch)}, watermill.NopLogger{})
		measured, err := measure(func() (message.Publisher, error) { return channel, nil }, channel, of)
		measured.Journal = "none"
		return measured, err
	case "sqlite":
		return onSQLite(directory, of)
	}
	return result{}, fmt.Errorf("-on %s: there are sqlite and channel", on)
}

func onSQLite(directory string, of load) (result, error) {
	dsn := "file:" + filepath.Join(directory, "watermill.db")
	subscriber, err := wmsqlitezombiezen.NewSubscriber(dsn, wmsqlitezombiezen.SubscriberOptions{
		// The fastest it has: it asks for more once in this time, at most.
		PollInterval:     time.Millisecond,
		BatchSize:        1000,
		InitializeSchema: true,
	})
	if err != nil {
		return result{}, err
	}
	// A connection as the subscriber opens its own: what is said of the one is true of both.
	connection, err := open(dsn)
	if err != nil {
		return result{}, err
	}
	defer connection.Close()
	synchronous, err := sqlitex.ResultInt(connection.Prep("PRAGMA synchronous"))
	if err != nil {
		return result{}, err
	}
	journal, err := sqlitex.ResultText(connection.Prep("PRAGMA journal_mode"))
	if err != nil {
		return result{}, err
	}
	// One connection: SQLite has one writer at a time, and the publisher guards it by a mutex of its own.
	publisher, err := wmsqlitezombiezen.NewPublisher(connection, wmsqlitezombiezen.PublisherOptions{InitializeSchema: true})
	if err != nil {
		return result{}, err
	}
	measured, err := measure(func() (message.Publisher, error) { return publisher, nil }, subscriber, of)
	measured.Synchronous, measured.Journal = synchronous, journal
	return measured, err
}

func open(dsn string) (*sqlite.Conn, error) {
	connection, err := sqlite.OpenConn(dsn)
	if err != nil {
		return nil, err
	}
	connection.SetBlockOnBusy()
	return connection, nil
}

func measure(publisher func() (message.Publisher, error), subscriber message.Subscriber, of load) (result, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	messages, err := subscriber.Subscribe(ctx, topic)
	if err != nil {
		return result{}, err
	}
	var published, acknowledged atomic.Int64
	room := make(chan struct{}, max(of.backlog/of.batch, of.publishers))
	over := make(chan struct{})
	go func() {
		for received := range messages {
			_ = received.Payload[0]
			received.Ack()
			if acknowledged.Add(1)%int64(of.batch) == 0 {
				<-room
			}
		}
		close(over)
	}()
	start := time.Now()
	end := start.Add(time.Duration(of.seconds * float64(time.Second)))
	var publishers sync.WaitGroup
	failed := make(chan error, of.publishers)
	for range of.publishers {
		to, err := publisher()
		if err != nil {
			return result{}, err
		}
		publishers.Go(func() {
			for time.Now().Before(end) {
				room <- struct{}{}
				batch := make([]*message.Message, of.batch)
				for i := range batch {
					batch[i] = message.NewMessage(watermill.NewUUID(), make([]byte, of.bytes))
				}
				if err := to.Publish(topic, batch...); err != nil {
					failed <- err
					return
				}
				published.Add(int64(of.batch))
			}
		})
	}
	publishers.Wait()
	select {
	case err := <-failed:
		return result{}, err
	default:
	}
	for acknowledged.Load() < published.Load() {
		time.Sleep(100 * time.Microsecond)
	}
	seconds := time.Since(start).Seconds()
	cancel()
	count := acknowledged.Load()
	return result{Rate: float64(count) / seconds, Events: count}, nil
}
