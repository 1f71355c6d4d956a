// Command nowserving is the live queue of a clinic: flags, configuration,
// wiring and the order of shutdown. What it does lives in the other packages.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
	_ "time/tzdata" // organizations have time zones, and not every machine has the database

	"github.com/gin-gonic/gin"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"nowserving/booking/access"
	"nowserving/booking/store"
	"nowserving/cmd/nowserving/node"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	gin.SetMode(gin.ReleaseMode) // it would print every route otherwise
	redis.SetLogger(redisLog{})
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "nowserving:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to stop
	}
}

// redisLog logs the Redis client's messages at Debug. The service reports lost
// connections itself.
type redisLog struct{}

func (redisLog) Printf(ctx context.Context, format string, v ...any) {
	slog.DebugContext(ctx, "redis client", "message", fmt.Sprintf(format, v...)) //nolint:sloglint // the client has one logger for the whole process
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "nowserving",
		Version:       node.Version(),
		Short:         "The live queue of a clinic",
		Long:          "Now Serving is the live queue of a clinic. It is configured by the environment; see config list.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	migrate := &cobra.Command{Use: "migrate", Short: "Bring the database's schema up to date, or look at it"}
	migrate.AddCommand(
		command("up", "Apply the migrations that are missing", migrateUp),
		command("status", "List the migrations", migrateStatus),
	)
	conf := &cobra.Command{Use: "config", Short: "Look at the configuration"}
	conf.AddCommand(
		command("check", "Check the configuration and say what is wrong", configCheck),
		&cobra.Command{
			Use: "list", Short: "List the settings with their defaults", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return node.ListConfig(cmd.OutOrStdout()) },
		},
	)
	keys := &cobra.Command{Use: "keys", Short: "Manage account API keys"}
	keys.AddCommand(keysCreate())
	cmd.AddCommand(
		command("serve", "Serve until told to stop", serve),
		demo(), migrate, conf, keys, auditCommands(),
		command("healthcheck", "Ask the server on this machine whether it works", healthcheck),
		&cobra.Command{
			Use: "version", Short: "Print the version of this build", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), node.Version())
				return err
			},
		},
	)
	return cmd
}

// command makes a command that needs the configuration and has no flags.
func command(use, short string, run func(context.Context, node.Config) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := node.ReadConfig(os.Environ())
		if err != nil {
			return err
		}
		return run(cmd.Context(), c)
	}}
}

// serve runs one node until ctx ends.
func serve(ctx context.Context, c node.Config) error {
	n, err := node.New(ctx, c)
	if err != nil {
		return err
	}
	return errors.Join(n.Run(ctx), n.Close())
}

func withStore(ctx context.Context, c node.Config, fn func(*store.Store) error) (err error) {
	s, err := c.OpenStore(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if closing := s.Close(); err == nil {
			err = closing
		}
	}()
	return fn(s)
}

// migrateUp migrates as the owner of the schema, if NOWSERVING_MIGRATE_URL names
// one, and gives the role of DATABASE_URL the rights of the service.
func migrateUp(ctx context.Context, c node.Config) error {
	owner := c
	if c.MigrateURL != "" {
		owner.DatabaseURL = c.MigrateURL
	}
	return withStore(ctx, owner, func(s *store.Store) error {
		n, err := s.Migrate(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("%d applied; the schema is up to date\n", n)
		if c.MigrateURL == "" {
			return nil
		}
		if err := s.GrantService(ctx, c.DatabaseURL); err != nil {
			return err
		}
		fmt.Println("the role of DATABASE_URL has the rights of the service")
		return nil
	})
}

func migrateStatus(ctx context.Context, c node.Config) error {
	return withStore(ctx, c, func(s *store.Store) error {
		list, err := s.Migrations(ctx)
		for _, m := range list {
			state := "missing"
			if m.Applied {
				state = "applied"
			}
			fmt.Printf("%5d  %-8s %s\n", m.Version, state, m.Name)
		}
		return err
	})
}

func configCheck(_ context.Context, c node.Config) error {
	backend := "SQLite in " + c.Data
	if c.DatabaseURL != "" {
		backend = "PostgreSQL"
	}
	index := "in-process"
	if c.RedisURL != "" {
		index = "Redis"
	}
	fmt.Printf("The configuration is right: %s, %s database, %s queue index, address %s.\n", c.Env, backend, index, c.Addr)
	return nil
}

func keysCreate() *cobra.Command {
	var plan access.KeyPlan
	var scopes []string
	var life time.Duration
	cmd := command("create", "Make an account API key and print it, once", func(ctx context.Context, c node.Config) error {
		return withStore(ctx, c, func(s *store.Store) error {
			if err := c.Prepare(ctx, s); err != nil {
				return err
			}
			secret, err := c.Secret()
			if err != nil {
				return err
			}
			a, err := access.New(s, access.Options{Secret: secret, Now: s.Time, Log: slog.Default()})
			if err != nil {
				return err
			}
			for _, scope := range scopes {
				plan.Scopes = append(plan.Scopes, access.Scope(scope))
			}
			if life > 0 {
				until := s.Time().Add(life)
				plan.ExpiresAt = &until
			}
			_, key, err := a.CreateKey(ctx, nil, plan)
			if err == nil {
				fmt.Println(key)
			}
			return err
		})
	})
	cmd.Flags().StringVar(&plan.Name, "name", "first", "what the key is for")
	cmd.Flags().StringSliceVar(&scopes, "scopes", []string{"admin"}, "what it may do: read, write or admin")
	cmd.Flags().DurationVar(&life, "expires", 0, "how long it works, such as 720h; 0: for ever")
	return cmd
}

// healthcheck is the container's health check, because the image has no other HTTP
// client. It asks /healthz and not /readyz: a new container would not help if
// PostgreSQL or Redis is away.
func healthcheck(ctx context.Context, c node.Config) error {
	_, port, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return fmt.Errorf("NOWSERVING_ADDR: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort("127.0.0.1", port)+"/healthz", http.NoBody)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	if err := res.Body.Close(); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("not healthy: %s", res.Status)
	}
	return nil
}
