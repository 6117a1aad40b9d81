"""Names that columns and events often have."""

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SESSIONS = _words(
    "session sessionid usersession visit visitid sid sessid sessionkey gasessionid browsersession "
    "sessionuuid sessionguid sessionhash sessiontoken "
    "sitzung sitzungsid sitzungsnummer"
)
USERS = _words(
    "user userid visitor visitorid fullvisitorid anonymousid customer customerid client clientid "
    "userpseudoid deviceid cookieid uid memberid shopper shopperid buyerid kunde kundennummer "
    "kundeid besucher profileid personid email"
)
ORDERS = _words(
    "order orderid ordernumber orderno transaction transactionid invoice invoiceno invoiceid "
    "basketid cartid carttoken checkoutid checkouttoken bestellung bestellnummer purchaseid"
)
ARTICLES = _words(
    "aid article articleid articlenumber item itemid itemnumber product productid prodid sku "
    "variant variantid lineitemvariant lineitemsku asin gtin ean goodsid offerid listingid "
    "articleno itemno productnumber productno contentid stockcode productcode productsku itemsku "
    "artikel artikelid artikelnummer artikelnr produkt "
    "produktid produktnummer pid"
)
PLAIN_IDS = frozenset({"id"})
"""Names that may be an article's, if no other name is."""
TIMES = _words(
    "ts t time timestamp at date datetime eventtime eventtimestamp eventts eventdate eventdatetime "
    "createdat created occurredat happenedat clienttime clienttimestamp invoicedate orderdate "
    "purchasedate zeit zeitpunkt zeitstempel datum uhrzeit"
)
TYPES = _words(
    "type event eventtype eventname action actiontype eventaction behavior behaviour behaviortype "
    "interaction interactiontype activity verb ereignis aktion"
)
IDS = SESSIONS | USERS | ORDERS | ARTICLES
COLUMNS = IDS | TIMES | TYPES
KEYS = _words("id uid uuid guid key code number no nr hash token")
"""Fields of an object that say which it is."""
WRAPPERS = _words("properties props attributes attrs data payload params body fields value context")
"""Objects whose names say nothing of their fields."""
WORDS = {
    "clicks": (
        "click clicks view views viewed pageview viewitem viewproduct productview productviewed "
        "productclicked viewcontent viewdetail detail details productdetail itemview itemviewed "
        "viewedproduct selectitem pv ansicht klick"
    ),
    "carts": (
        "cart carts basket addtocart addtobasket addtobag addcart cartadd addedtocart productadded "
        "addproducttocart atc warenkorb"
    ),
    "orders": (
        "order orders purchase purchases purchased transaction buy buys bought buyitem sale "
        "ordercompleted orderplaced checkoutcompleted itempurchased productpurchased "
        "bestellung kauf"
    ),
}
"""Plain words of events, by the types of the table."""
TYPE_OF = {word: name for name, words in WORDS.items() for word in words.split()}


def plain(name: str) -> str:
    """A name without case, blanks and signs: of `properties.product_id`, and of `product.id` and
    `product.data.key`, productid.

    A field counts by itself, unless it is but the key or the type of the object that holds it.
    """
    parts = [word for part in name.split(".") if (word := plain_word(part))]
    *objects, field = parts or [""]
    owners = [owner for owner in objects if owner not in WRAPPERS]
    if not owners:
        return field
    if field in KEYS:
        return f"{owners[-1]}id"
    joined = owners[-1] + field
    if joined in COLUMNS or (field in TYPES and owners[-1] in IDS):
        return joined
    return field


def plain_word(text: str) -> str:
    """Text without case, blanks and signs: addtocart for "Add to cart"."""
    return re.sub(r"[\W_]", "", text.lower())
