-- What Envoy does for REST callers beside translating JSON:
-- - sets x-adapter-key, which replicas are chosen by, from the request's body, unless the caller sends it;
-- - refuses fields that OpenAI's Images API does not have (the transcoder ignores unknown fields);
-- - gives errors the form of the API that was called, those of Envoy itself among them.
-- Each route says by filter_context which API its path belongs to: {api: openai | sdapi | hotlora}. `fields` lists the
-- fields of an API that refuses others.

local MAX_BODY_BYTES = 33554432
local MAX_HEADER_BYTES = 12288  -- as in max_request_headers_kb: more would end the connection to the server
-- Of JSON: beyond these limits a request has no key, and the server says what is wrong with it.
local MAX_DEPTH = 32       -- of what is read, not merely skipped
local MAX_MARKS = 100000   -- quotes and brackets in one body; base64 has none
local MAX_READ = 131072    -- bytes of the field that names the adapters
local MAX_NAME_SHOWN = 64  -- bytes of a member's name

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

local marks = 0  -- of the body that is being read

local function mark_is_allowed()
  marks = marks + 1
  return marks <= MAX_MARKS
end

-- The place of the quote that ends the string whose text begins at `from`; nil if there is none.
local function closing_quote(text, from)
  local search = from
  while true do
    local quote = text:find('"', search, true)
    if not quote or not mark_is_allowed() then return nil end
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
    if not found or not mark_is_allowed() then return nil end
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
    visit(unescape(text:sub(at + 1, math.min(quote - 1, at + MAX_NAME_SHOWN))), first, after - 1)
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

-- As a JSON string. Each byte that is not of valid UTF-8 becomes "?", as the text may quote what a caller sent.
local function quoted(text)
  text = text:gsub("([\192-\255]?)([\128-\191]*)", function(lead, rest)
    local byte = lead:byte() or 0
    local length = byte < 0xC2 and 0 or byte < 0xE0 and 1 or byte < 0xF0 and 2 or byte < 0xF5 and 3 or 0
    return (length == 0 or #rest ~= length) and ("?"):rep(#lead + #rest) or nil
  end)
  return '"' .. text:gsub('[%c"\\]', function(c) return string.format("\\u%04x", c:byte()) end) .. '"'
end

local function quoted_or_null(text) return text and quoted(text) or "null" end

-- --- Normal form C ---------------------------------------------------------------------------------------------------

-- Letters with the mark of the line, each followed by the one character that is both. gRPC callers send names in normal form C,
-- and macOS writes names of files with marks as characters of their own. This does for Latin, Greek, Cyrillic, kana and
-- Hangul what it takes to have the same key.
local COMPOSED_WITH = {
  ["\204\128"] = "AÀEÈIÌOÒUÙaàeèiìoòuùÜǛüǜNǸnǹЕЀИЍеѐиѝĒḔēḕŌṐōṑWẀwẁÂẦâầĂẰăằÊỀêềÔỒôồƠỜơờƯỪưừYỲyỳἀἂἁἃἈἊἉἋἐἒἑἓἘἚἙἛἠἢ" ..
    "ἡἣἨἪἩἫἰἲἱἳἸἺἹἻὀὂὁὃὈὊὉὋὐὒὑὓὙὛὠὢὡὣὨὪὩὫαὰεὲηὴιὶοὸυὺωὼΑᾺΕῈΗῊ᾿῍ϊῒΙῚ῾῝ϋῢΥῪ¨῭ΟῸΩῺ",
  ["\204\129"] = "AÁEÉIÍOÓUÚYÝaáeéiíoóuúyýCĆcćLĹlĺNŃnńRŔrŕSŚsśZŹzźÜǗüǘGǴgǵÅǺåǻÆǼæǽØǾøǿ¨΅ΑΆΕΈΗΉΙΊΟΌΥΎΩΏϊΐαάεέηήιί" ..
    "ϋΰοόυύωώϒϓГЃКЌгѓкќÇḈçḉĒḖēḗÏḮïḯKḰkḱMḾmḿÕṌõṍŌṒōṓPṔpṕŨṸũṹWẂwẃÂẤâấĂẮăắÊẾêếÔỐôốƠỚơớƯỨưứἀἄἁἅἈἌἉἍἐἔἑἕἘἜἙἝἠἤἡἥἨἬἩἭ" ..
    "ἰἴἱἵἸἼἹἽὀὄὁὅὈὌὉὍὐὔὑὕὙὝὠὤὡὥὨὬὩὭ᾿῎῾῞",
  ["\204\130"] = "AÂEÊIÎOÔUÛaâeêiîoôuûCĈcĉGĜgĝHĤhĥJĴjĵSŜsŝWŴwŵYŶyŷZẐzẑẠẬạậẸỆẹệỌỘọộ",
  ["\204\131"] = "AÃNÑOÕaãnñoõIĨiĩUŨuũVṼvṽÂẪâẫĂẴăẵEẼeẽÊỄêễÔỖôỗƠỠơỡƯỮưữYỸyỹ",
  ["\204\132"] = "AĀaāEĒeēIĪiīOŌoōUŪuūÜǕüǖÄǞäǟȦǠȧǡÆǢæǣǪǬǫǭÖȪöȫÕȬõȭȮȰȯȱYȲyȳИӢиӣУӮуӯGḠgḡḶḸḷḹṚṜṛṝαᾱΑᾹιῑΙῙυῡΥῩ",
  ["\204\134"] = "AĂaăEĔeĕGĞgğIĬiĭOŎoŏUŬuŭУЎИЙийуўЖӁжӂАӐаӑЕӖеӗȨḜȩḝẠẶạặαᾰΑᾸιῐΙῘυῠΥῨ",
  ["\204\135"] = "CĊcċEĖeėGĠgġIİZŻzżAȦaȧOȮoȯBḂbḃDḊdḋFḞfḟHḢhḣMṀmṁNṄnṅPṖpṗRṘrṙSṠsṡŚṤśṥŠṦšṧṢṨṣṩTṪtṫWẆwẇXẊxẋYẎyẏſẛ",
  ["\204\136"] = "AÄEËIÏOÖUÜaäeëiïoöuüyÿYŸΙΪΥΫιϊυϋϒϔЕЁІЇеёіїАӒаӓӘӚәӛЖӜжӝЗӞзӟИӤиӥОӦоӧӨӪөӫЭӬэӭУӰуӱЧӴчӵЫӸыӹHḦhḧÕṎõṏ" ..
    "ŪṺūṻWẄwẅXẌxẍtẗ",
  ["\204\137"] = "AẢaảÂẨâẩĂẲăẳEẺeẻÊỂêểIỈiỉOỎoỏÔỔôổƠỞơởUỦuủƯỬưửYỶyỷ",
  ["\204\138"] = "AÅaåUŮuůwẘyẙ",
  ["\204\139"] = "OŐoőUŰuűУӲуӳ",
  ["\204\140"] = "CČcčDĎdďEĚeěLĽlľNŇnňRŘrřSŠsšTŤtťZŽzžAǍaǎIǏiǐOǑoǒUǓuǔÜǙüǚGǦgǧKǨkǩƷǮʒǯjǰHȞhȟ",
  ["\204\143"] = "AȀaȁEȄeȅIȈiȉOȌoȍRȐrȑUȔuȕѴѶѵѷ",
  ["\204\145"] = "AȂaȃEȆeȇIȊiȋOȎoȏRȒrȓUȖuȗ",
  ["\204\147"] = "αἀΑἈεἐΕἘηἠΗἨιἰΙἸοὀΟὈυὐωὠΩὨρῤ",
  ["\204\148"] = "αἁΑἉεἑΕἙηἡΗἩιἱΙἹοὁΟὉυὑΥὙωὡΩὩρῥΡῬ",
  ["\204\155"] = "OƠoơUƯuư",
  ["\204\163"] = "BḄbḅDḌdḍHḤhḥKḲkḳLḶlḷMṂmṃNṆnṇRṚrṛSṢsṣTṬtṭVṾvṿWẈwẉZẒzẓAẠaạEẸeẹIỊiịOỌoọƠỢơợUỤuụƯỰưựYỴyỵ",
  ["\204\164"] = "UṲuṳ",
  ["\204\165"] = "AḀaḁ",
  ["\204\166"] = "SȘsșTȚtț",
  ["\204\167"] = "CÇcçGĢgģKĶkķLĻlļNŅnņRŖrŗSŞsşTŢtţEȨeȩDḐdḑHḨhḩ",
  ["\204\168"] = "AĄaąEĘeęIĮiįUŲuųOǪoǫ",
  ["\204\173"] = "DḒdḓEḘeḙLḼlḽNṊnṋTṰtṱUṶuṷ",
  ["\204\174"] = "HḪhḫ",
  ["\204\176"] = "EḚeḛIḬiḭUṴuṵ",
  ["\204\177"] = "BḆbḇDḎdḏKḴkḵLḺlḻNṈnṉRṞrṟTṮtṯZẔzẕhẖ",
  ["\205\130"] = "ἀἆἁἇἈἎἉἏἠἦἡἧἨἮἩἯἰἶἱἷἸἾἹἿὐὖὑὗὙὟὠὦὡὧὨὮὩὯαᾶ¨῁ηῆ᾿῏ιῖϊῗ῾῟υῦϋῧωῶ",
  ["\205\133"] = "ἀᾀἁᾁἂᾂἃᾃἄᾄἅᾅἆᾆἇᾇἈᾈἉᾉἊᾊἋᾋἌᾌἍᾍἎᾎἏᾏἠᾐἡᾑἢᾒἣᾓἤᾔἥᾕἦᾖἧᾗἨᾘἩᾙἪᾚἫᾛἬᾜἭᾝἮᾞἯᾟὠᾠὡᾡὢᾢὣᾣὤᾤὥᾥὦᾦὧᾧὨᾨὩᾩὪᾪὫᾫὬᾬὭᾭὮᾮ" ..
    "ὯᾯὰᾲαᾳάᾴᾶᾷΑᾼὴῂηῃήῄῆῇΗῌὼῲωῳώῴῶῷΩῼ",
  ["\227\130\153"] = "かがきぎくぐけげこごさざしじすずせぜそぞただちぢつづてでとどはばひびふぶへべほぼうゔゝゞカガキギクグケゲコゴサザシジスズセゼソゾタダチヂツヅテデトドハバヒビフブヘベホボウヴワヷヰヸ" ..
    "ヱヹヲヺヽヾ",
  ["\227\130\154"] = "はぱひぴふぷへぺほぽハパヒピフプヘペホポ",
}

local ANY_CHARACTER = "[%z\1-\127\194-\244][\128-\191]*"
local COMPOSED = {}
for mark, pairs_of_mark in pairs(COMPOSED_WITH) do
  for letter, composed in pairs_of_mark:gmatch("(" .. ANY_CHARACTER .. ")(" .. ANY_CHARACTER .. ")") do
    COMPOSED[letter .. mark] = composed
  end
end

-- The code point of a character of three bytes, as those of Hangul are; 0 for others.
local function code_of(character)
  local a, b, c = character:byte(1, 3)
  return #character == 3 and (a % 0x10) * 0x1000 + (b % 0x40) * 0x40 + c % 0x40 or 0
end

-- A syllable of Hangul of two parts; nil if they are none.
local function hangul(first, second)
  local a, b = code_of(first), code_of(second)
  if a >= 0x1100 and a < 0x1113 and b >= 0x1161 and b < 0x1176 then
    return utf8(0xAC00 + ((a - 0x1100) * 21 + b - 0x1161) * 28)
  elseif a >= 0xAC00 and a < 0xD7A4 and (a - 0xAC00) % 28 == 0 and b > 0x11A7 and b < 0x11C3 then
    return utf8(a + b - 0x11A7)
  end
  return nil
end

local function normal_form(name)
  if not name:find("[\128-\255]") then return name end
  local characters = {}
  for character in name:gmatch(ANY_CHARACTER) do
    local before = characters[#characters]
    local composed = before and (COMPOSED[before .. character] or hangul(before, character))
    characters[composed and #characters or #characters + 1] = composed or character
  end
  return table.concat(characters)
end

-- --- x-adapter-key ---------------------------------------------------------------------------------------------------

-- The names as gRPC callers write them into x-adapter-key: in their order, in normal form C, percent-encoded, joined by
-- commas.
local function adapter_key(names)
  for i, name in ipairs(names) do
    names[i] = normal_form(name):gsub("[^%w%-%._~/]", function(c) return string.format("%%%02X", c:byte()) end)
  end
  return #names == 0 and "base" or table.concat(names, ",")
end

local NAMES = {
  -- model: NAME or NAME:WEIGHT, several joined by "+"; in a name "+" is %2B and "%" is %25. "sdxl" and "" are the base model.
  openai = function(request)
    local names = {}
    if type(request.model) == "string" and request.model ~= "sdxl" and request.model ~= "" then
      for part in (request.model .. "+"):gmatch("(.-)%+") do
        names[#names + 1] = (part:match("^(.*):") or part):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
      end
    end
    return names
  end,
  -- prompt: with <lora:NAME:WEIGHT>.
  sdapi = function(request)
    local names = {}
    if type(request.prompt) == "string" then
      for tag in request.prompt:gmatch("<lora:([^>]*)>") do
        if tag == "" then break end  -- the server reads no tag from here on
        for part in (tag .. ":"):gmatch("(.-):") do
          if not (part:find("^te=") or part:find("^unet=") or part:find("^dyn=")) then
            names[#names + 1] = part:match("^%s*(.-)%s*$")
            break
          end
        end
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
    if reason == "ADAPTER_NOT_FOUND" then field = NAMING_FIELD.openai end
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
    return text, status == 413 and "TOO_LARGE" or nil, field
  end
  marks = 0
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
  local request, refusal = {}, nil
  marks = 0
  each_member(text, 1, function(name, first, last)
    if name == NAMING_FIELD[api] and last - first < MAX_READ then request[name] = read(text, first, last) end
    if known and not known[name] then
      refusal = refusal or name:gsub("[^%w_]", "?") .. ": no such field"
    elseif known and text:find("^[%[{]", first) then  -- for which the transcoder's error names no field
      refusal = refusal or name .. ": is a list or an object; allowed is one value"
    end
  end)
  if refusal then
    handle:respond({[":status"] = "400"}, refusal)
    return
  end
  local key = adapter_key(NAMES[api](request))
  local bytes = #"x-adapter-key" + #key
  for name, value in pairs(handle:headers()) do bytes = bytes + #name + #value end
  if bytes <= MAX_HEADER_BYTES and not handle:headers():get("x-adapter-key") then
    handle:headers():add("x-adapter-key", key)
  end
end

function envoy_on_response(handle)
  local form = FORMS[handle:filterContext():get("api")]
  local status = tonumber(handle:headers():get(":status"))
  if not form or status < 400 then return end
  local body = handle:body(true)
  local message, reason, field, code, wait = read_error(body:getBytes(0, body:length()), status)
  if message == "" then message = "the server gave no reason; the HTTP status is " .. status end
  local shown, text = form(status, message, reason, field, code)
  handle:headers():replace(":status", tostring(shown))
  handle:headers():replace("content-type", "application/json")
  handle:headers():replace("content-length", tostring(body:setBytes(text)))
  if wait then handle:headers():replace("retry-after", tostring(wait)) end
end
