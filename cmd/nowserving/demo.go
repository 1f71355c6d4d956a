package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"nowserving/booking/access"
	"nowserving/cmd/nowserving/node"
	"nowserving/loadtest"
)

// demoCode is the one-time code of every sign-in in a demo.
const demoCode = "000000"

func demo() *cobra.Command {
	var speed float64
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Serve a seeded clinic that lives a simulated day, and print its addresses",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd.Context(), speed)
		},
	}
	cmd.Flags().Float64Var(&speed, "speed", 20, "simulated minutes in a real minute")
	return cmd
}

// runDemo serves with the defaults: everything embedded, in a folder that is deleted
// afterwards, with a new key.
func runDemo(ctx context.Context, speed float64) (err error) {
	if speed <= 0 {
		return errors.New("--speed is a number larger than 0")
	}
	data, err := os.MkdirTemp("", "nowserving-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
	c, err := demoConfig(data)
	if err != nil {
		return err
	}
	slog.SetLogLoggerLevel(slog.LevelWarn)
	n, err := node.New(ctx, c)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var living error
	var running sync.WaitGroup
	running.Go(func() {
		defer stop() // without its clinic the demo shows nothing
		living = live(ctx, n, c.BootstrapKey, speed)
	})
	err = n.Run(ctx)
	stop()
	running.Wait()
	return errors.Join(err, living, n.Close())
}

// live opens the clinic, prints its addresses and lives its day until ctx ends.
func live(ctx context.Context, n *node.Node, key string, speed float64) error {
	select {
	case <-n.Serving():
	case <-ctx.Done():
		return nil
	}
	clinic, err := loadtest.OpenClinic(ctx, n.URL, key, speed, slog.Default())
	if stopped := ctx.Err() != nil; stopped || err != nil {
		if stopped {
			err = nil // it could not open
		}
		return err
	}
	fmt.Printf(`
  Now Serving: %s is open, %g times as fast as a real day.

  Patient    %s/join/%s
             join with any phone number, e.g. +966500000001, code %s
  Doctor     %s/console
             organization %s, phone %s, code %s
  Display    %s%s
  API        %s/docs
             key %s with X-APP-ID: %s

  Ctrl-C closes the clinic; everything it made is deleted then.

`, "Al Noor Clinic", speed, n.URL, clinic.OrganizationID, demoCode, n.URL, clinic.OrganizationID, loadtest.DoctorPhone, demoCode,
		n.URL, clinic.DisplayPath, n.URL, key, clinic.OrganizationID)
	clinic.Live(ctx)
	return nil
}

// demoConfig is the configuration of a demo with its data in a folder.
func demoConfig(data string) (node.Config, error) {
	c, err := node.ReadConfig([]string{
		"NOWSERVING_DATA=" + data, "NOWSERVING_ENV=development", "NOWSERVING_OTP_FIXED_CODE=" + demoCode,
		"NOWSERVING_BOOTSTRAP_KEY=" + access.NewToken(), "NOWSERVING_ADDR=" + demoAddr(),
		"NOWSERVING_RATE_LIMIT=1000000",         // the simulated day comes from one address
		"NOWSERVING_WEBHOOK_ALLOW_PRIVATE=true", // to a receiver on this machine
	})
	c.EndlessCodes = true // visitors share the doctor's phone number
	return c, err
}

// demoAddr is the usual port on this machine only or, when it is taken, a free
// one. NOWSERVING_ADDR overrides both.
func demoAddr() string {
	if addr := os.Getenv("NOWSERVING_ADDR"); addr != "" {
		return addr
	}
	const usual = "127.0.0.1:8080"
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", usual)
	if err != nil {
		return "127.0.0.1:0"
	}
	if err := l.Close(); err != nil {
		return "127.0.0.1:0"
	}
	return usual
}
