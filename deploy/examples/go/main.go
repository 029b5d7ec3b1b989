// Paints a picture and shows how far it is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/url"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "hotlora-example/hotlorav1"
)

// deploy/service_config.json, shortened: what did not start is tried again.
const serviceConfig = `{
  "methodConfig": [{
    "name": [{"service": "hotlora.v1.ImageService"}],
    "retryPolicy": {
      "maxAttempts": 4, "initialBackoff": "0.5s", "maxBackoff": "10s", "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
    }
  }],
  "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1}
}`

// routingKey is what load balancers route by: the adapters' names in the request's order, percent-encoded, or "base".
func routingKey(adapters []string) string {
	if len(adapters) == 0 {
		return "base"
	}
	names := make([]string, len(adapters))
	for i, name := range adapters {
		names[i] = strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(name))
	}
	return strings.Join(names, ",")
}

// dial opens a channel that tries again what did not start, and takes images of any size. It is written so that grpc-go
// of Debian 12 (1.33) compiles it too; grpc-go before 1.40 retries only if GRPC_GO_RETRY is "on" in the environment.
func dial(server string) (*grpc.ClientConn, error) {
	return grpc.Dial(server, grpc.WithInsecure(), grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
}

func paint(ctx context.Context, images pb.ImageServiceClient, request *pb.GenerateImagesRequest) ([]byte, error) {
	stream, err := images.StreamGenerateImages(ctx, request)
	if err != nil {
		return nil, err
	}
	var picture []byte
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return picture, nil
		}
		if err != nil {
			return nil, err
		}
		if progress := event.GetProgress(); progress != nil {
			fmt.Fprintf(os.Stderr, "step %d of %d\n", progress.GetStep(), progress.GetTotalSteps())
		}
		picture = append(picture, event.GetImage().GetData()...) // over 2 MiB it comes in parts
	}
}

func main() {
	var adapters []string
	flag.Func("adapter", "name of an adapter (repeatable)", func(name string) error {
		adapters = append(adapters, name)
		return nil
	})
	steps := flag.Uint("steps", 30, "denoising steps")
	seed := flag.Uint64("seed", 0, "seed; a random one without it")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: hotlora-example [-adapter NAME]... [-steps N] [-seed N] PROMPT")
	}
	server := os.Getenv("HOTLORA_SERVER")
	if server == "" {
		server = "127.0.0.1:50051"
	}

	connection, err := dial(server)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()

	prompt, steps32 := flag.Arg(0), uint32(*steps)
	request := &pb.GenerateImagesRequest{Prompt: &prompt, Steps: &steps32}
	flag.Visit(func(given *flag.Flag) {
		if given.Name == "seed" {
			request.Seed = seed
		}
	})
	for _, name := range adapters {
		request.Adapters = append(request.Adapters, &pb.AdapterRef{Name: name})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "x-adapter-key", routingKey(adapters))
	picture, err := paint(ctx, pb.NewImageServiceClient(connection), request)
	if err != nil {
		log.Fatalf("%s: %s", status.Code(err), status.Convert(err).Message())
	}
	if err := os.WriteFile("picture.png", picture, 0o644); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("picture.png: %d bytes\n", len(picture))
}
