-- What Envoy does for REST callers beside translating JSON:
-- - sets x-adapter-key, which replicas are chosen by, from the request's body, unless the caller sends it;
-- - refuses fields that OpenAI's Images API does not have (the transcoder ignores unknown fields);
-- - gives errors the form of the API that was called, those of Envoy itself among them.
-- Each route says by filter_context which API its path belongs to: {api: openai | sdapi | hotlora}, and the known `fields`.

local MAX_BODY_BYTES = 33554432
local MAX_DEPTH = 32  -- of JSON that is read, not merely skipped

-- --- JSON ------------------------------------------------------------------------------------------------------------

local function utf8(code)
  if code < 0x80 then return string.char(code) end
  if code < 0x800 then return string.char(0xC0 + math.floor(code / 0x40), 0x80 + code % 0x40) end
  if code < 0x10000 then
    return string.char(0xE0 + math.floor(code / 0x1000), 0x80 + math.floor(code / 0x40) % 0x40, 0x80 + code % 0x40)
  end
  return string.char(0xF0 + math.floor(code / 0x40000), 0x80 + math.floor(code / 0x1000) % 0x40,
                     0x80 + math.floor(code / 0x40) % 0x40, 0x80 + code % 0x40)
end

local ESCAPES = {b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/"}

-- The text that stands between the quotes of a JSON string.
local function unescape(raw)
  if not raw:find("\\", 1, true) then return raw end
  -- A character beyond U+FFFF is a pair of escapes.
  raw = raw:gsub("(\\+)u([dD][89abAB]%x%x)\\u([dD][c-fC-F]%x%x)", function(slashes, high, low)
    if #slashes % 2 == 0 then return nil end
    local code = 0x10000 + (tonumber(high, 16) - 0xD800) * 0x400 + tonumber(low, 16) - 0xDC00
    return slashes:sub(2) .. utf8(code)
  end)
  return (raw:gsub("\\(.)(%x?%x?%x?%x?)", function(letter, hex)
    if letter == "u" and #hex == 4 then return utf8(tonumber(hex, 16)) end
    return (ESCAPES[letter] or letter) .. hex
  end))
end

-- The place of the quote that ends the string whose text begins at `from`; nil if there is none.
local function closing_quote(text, from)
  local search = from
  while true do
    local quote = text:find('"', search, true)
    if not quote then return nil end
    local before = quote - 1
    while before >= from and text:byte(before) == 92 do before = before - 1 end
    if (quote - before) % 2 == 1 then return quote end
    search = quote + 1
  end
end

-- The place after the value that begins at `from`; nil if the text ends before.
local function after_value(text, from)
  local depth, at = 0, from
  repeat
    local found = text:find(depth == 0 and '[%S]' or '["{}%[%]]', at)
    if not found then return nil end
    local mark = text:sub(found, found)
    if mark == '"' then
      local quote = closing_quote(text, found + 1)
      if not quote then return nil end
      at = quote + 1
    elseif mark == "{" or mark == "[" then
      depth, at = depth + 1, found + 1
    elseif mark == "}" or mark == "]" then
      depth, at = depth - 1, found + 1
      if depth < 0 then return nil end
    else
      at = text:find("[%s,}%]]", found) or #text + 1
    end
  until depth == 0
  return at
end

-- Calls visit(name, first, last) for each member of the object that begins at `from`; the value is text:sub(first, last).
-- The place after the object, or nil where the text is not an object.
local function each_member(text, from, visit)
  local at = text:match("^%s*{%s*()", from)
  local empty_end = at and text:match("^}()", at)
  if empty_end then return empty_end end
  while at and text:sub(at, at) == '"' do
    local quote = closing_quote(text, at + 1)
    local first = quote and text:match("^%s*:%s*()", quote + 1)
    local after = first and after_value(text, first)
    if not after then return nil end
    visit(unescape(text:sub(at + 1, quote - 1)), first, after - 1)
    local over = text:match("^%s*}()", after)
    if over then return over end
    at = text:match("^%s*,%s*()", after)
  end
  return nil
end

-- The value between two places; nil for null and for what is not JSON.
local function read(text, first, last, depth)
  depth = depth or 0
  local mark = text:sub(first, first)
  if mark == '"' then
    return unescape(text:sub(first + 1, last - 1))
  elseif depth == MAX_DEPTH then
    return nil
  elseif mark == "{" then
    local object = {}
    each_member(text, first, function(name, from, to) object[name] = read(text, from, to, depth + 1) end)
    return object
  elseif mark == "[" then
    local list, at = {}, text:match("^%s*()", first + 1)
    while at and at < last do
      local after = after_value(text, at)
      if not after then return list end
      list[#list + 1] = read(text, at, after - 1, depth + 1)
      at = text:match("^%s*,%s*()", after)
    end
    return list
  end
  local word = text:sub(first, last)
  if word == "true" or word == "false" then return word == "true" end
  return tonumber(word)
end

local function quoted(text)
  return '"' .. text:gsub('[%c"\\]', function(c) return string.format("\\u%04x", c:byte()) end) .. '"'
end

local function quoted_or_null(text) return text and quoted(text) or "null" end

-- --- x-adapter-key ---------------------------------------------------------------------------------------------------

-- The names as gRPC callers write them into x-adapter-key: in their order, percent-encoded, joined by commas.
local function adapter_key(names)
  for i, name in ipairs(names) do
    names[i] = name:gsub("[^%w%-%._~/]", function(c) return string.format("%%%02X", c:byte()) end)
  end
  return #names == 0 and "base" or table.concat(names, ",")
end

local NAMES = {
  -- model: NAME or NAME:WEIGHT, several joined by "+"; "sdxl" is the base model.
  openai = function(request)
    local names = {}
    if type(request.model) == "string" and request.model ~= "sdxl" then
      for part in (request.model .. "+"):gmatch("(.-)%+") do
        names[#names + 1] = part:match("^(.*):[^:]*$") or part
      end
    end
    return names
  end,
  -- prompt: with <lora:NAME:WEIGHT>.
  sdapi = function(request)
    local names = {}
    if type(request.prompt) == "string" then
      for name in request.prompt:gmatch("<lora:([^>:]+)[^>]*>") do
        names[#names + 1] = name:match("^%s*(.-)%s*$")
      end
    end
    return names
  end,
  -- adapters: objects with a name.
  hotlora = function(request)
    local names = {}
    for _, adapter in ipairs(type(request.adapters) == "table" and request.adapters or {}) do
      if type(adapter) == "table" and type(adapter.name) == "string" then names[#names + 1] = adapter.name end
    end
    return names
  end,
}
local NAMING_FIELD = {openai = "model", sdapi = "prompt", hotlora = "adapters"}

-- --- Errors ----------------------------------------------------------------------------------------------------------

local OPENAI_TYPES = {[401] = "authentication_error", [403] = "permission_error", [429] = "rate_limit_error"}

local FORMS = {
  openai = function(status, message, reason, field)
    local kind = OPENAI_TYPES[status] or (status < 500 and "invalid_request_error" or "server_error")
    return status, string.format('{"error":{"message":%s,"type":%s,"param":%s,"code":%s}}', quoted(message), quoted(kind),
                                 quoted_or_null(field), quoted_or_null(reason))
  end,
  sdapi = function(status, message, reason, _, code)
    if status == 400 and (code == nil or code == 3) then status = 422 end  -- as its own server says of a bad body
    return status, string.format('{"error":%s,"detail":%s,"body":"","errors":%s}', quoted(reason or "HTTPException"),
                                 quoted(message), quoted(message))
  end,
}

-- What an error's body says: message, reason, the first bad field, gRPC's code, seconds to wait. The body is
-- google.rpc.Status as JSON, or Envoy's own text.
local function read_error(text, status)
  if text:sub(1, 1) ~= "{" then
    local field = text:match("^([%w_%.%[%]]+): ")
    return text ~= "" and text or "the proxy answers " .. status, status == 413 and "TOO_LARGE" or nil, field
  end
  local error = read(text, 1, #text) or {}
  local reason, field, wait
  for _, detail in ipairs(type(error.details) == "table" and error.details or {}) do
    local kind = detail["@type"] or ""
    if kind:find("ErrorInfo", 1, true) then reason = detail.reason end
    if kind:find("BadRequest", 1, true) and detail.field_violations and detail.field_violations[1] then
      field = detail.field_violations[1].field
    end
    if kind:find("RetryInfo", 1, true) and detail.retry_delay then
      wait = math.ceil(tonumber(detail.retry_delay:match("^[%d.]+")) or 1)
    end
  end
  return error.message or "", reason, field, error.code, wait
end

-- --- Envoy's calls ---------------------------------------------------------------------------------------------------

function envoy_on_request(handle)
  local api, fields = handle:filterContext():get("api"), handle:filterContext():get("fields")
  if not api or handle:headers():get(":method") ~= "POST" then return end
  local body = handle:body()
  if not body then return end
  if body:length() > MAX_BODY_BYTES then
    handle:respond({[":status"] = "413"},
                   "the body has " .. body:length() .. " bytes; allowed are at most " .. MAX_BODY_BYTES)
    return
  end
  local text = body:getBytes(0, body:length())

  local known = fields and {}
  for _, name in ipairs(fields or {}) do known[name] = true end
  local request, unknown = {}, nil
  each_member(text, 1, function(name, first, last)
    if name == NAMING_FIELD[api] then request[name] = read(text, first, last) end
    if known and not known[name] then unknown = unknown or name end
  end)
  if unknown then
    handle:respond({[":status"] = "400"}, unknown .. ": no such field")
    return
  end
  if not handle:headers():get("x-adapter-key") then
    handle:headers():add("x-adapter-key", adapter_key(NAMES[api](request)))
  end
end

function envoy_on_response(handle)
  local form = FORMS[handle:filterContext():get("api")]
  local status = tonumber(handle:headers():get(":status"))
  if not form or status < 400 then return end
  local body = handle:body(true)
  local message, reason, field, code, wait = read_error(body:getBytes(0, body:length()), status)
  local shown, text = form(status, message, reason, field, code)
  handle:headers():replace(":status", tostring(shown))
  handle:headers():replace("content-type", "application/json")
  handle:headers():replace("content-length", tostring(body:setBytes(text)))
  if wait then handle:headers():replace("retry-after", tostring(wait)) end
end
