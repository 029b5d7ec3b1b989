#include "server/metrics_endpoint.h"

#include <civetweb.h>

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace hotlora {
namespace {

// Answers GET and HEAD; the status is what civetweb's request handlers return.
int Answer(mg_connection* connection, int status, const char* media_type, const std::string& body) {
  const absl::string_view method = mg_get_request_info(connection)->request_method;
  if (method != "GET" && method != "HEAD") {
    mg_send_http_error(connection, 405, "only GET and HEAD");
    return 405;
  }
  mg_printf(connection, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
            status, mg_get_response_code_text(connection, status), media_type, body.size());
  if (method == "GET") {
    mg_write(connection, body.data(), body.size());
  }
  return status;
}

int Answer(mg_connection* connection, bool good) {
  return Answer(connection, good ? 200 : 503, "text/plain", good ? "ok\n" : "not ready\n");
}

}  // namespace

MetricsEndpoint::MetricsEndpoint(const Metrics& metrics, std::function<bool()> is_ready)
    : metrics_(metrics), is_ready_(std::move(is_ready)) {}

MetricsEndpoint::~MetricsEndpoint() {
  if (server_ != nullptr) {
    mg_stop(server_);
  }
}

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Start(const std::string& listen,
                                                                        const Metrics& metrics,
                                                                        std::function<bool()> is_ready) {
  std::unique_ptr<MetricsEndpoint> endpoint(new MetricsEndpoint(metrics, std::move(is_ready)));
  const std::array<const char*, 5> options = {"listening_ports", listen.c_str(), "num_threads", "4", nullptr};
  const mg_callbacks callbacks{};
  endpoint->server_ = mg_start(&callbacks, endpoint.get(), const_cast<const char**>(options.data()));
  mg_server_port port{};
  if (endpoint->server_ == nullptr || mg_get_server_ports(endpoint->server_, 1, &port) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--metrics-listen ", listen, ": cannot listen there (is the port taken?)"));
  }
  endpoint->port_ = port.port;
  const auto serve = [&endpoint](const char* path, mg_request_handler handler) {
    mg_set_request_handler(endpoint->server_, path, handler, endpoint.get());
  };
  serve("/metrics$", [](mg_connection* connection, void* self) {
    return Answer(connection, 200, "text/plain; version=0.0.4; charset=utf-8",
                  static_cast<MetricsEndpoint*>(self)->metrics_.Render());
  });
  serve("/-/ready$", [](mg_connection* connection, void* self) {
    return Answer(connection, static_cast<MetricsEndpoint*>(self)->is_ready_());
  });
  serve("/-/healthy$", [](mg_connection* connection, void*) { return Answer(connection, true); });
  serve("/", [](mg_connection* connection, void*) { return Answer(connection, 404, "text/plain", "not found\n"); });
  return endpoint;
}

}  // namespace hotlora
